import json
from pathlib import Path

import pytest
import torch

from model.checkpoint import CheckpointFolder
from model.run_facts import checkpoint_facts, run_facts
from pipeline.errors import CheckpointError

STORE = {"path": "S", "name": "scenes", "fingerprint": "f" * 64}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after 4 steps of 10, resumed, and is now at 6."""
    sessions = [
        {"started": f"2026-01-0{day}T00:00:00+00:00", "from_step": step, "device": device}
        for day, step, device in ((1, 0, "cpu"), (2, 4, "H200"))
    ]
    about = {"parameters": 1234, "trainable": 1000, "store": STORE, "parent": None, "sessions": sessions}
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "config.yaml").write_text("steps: 10\nstore: S\n")
    lines = [
        {"step": 2, "loss": 0.5},
        {"step": 4, "loss": 0.25},
        {"step": 4, "val_psnr": 20.0, "val_frames": 3, "best": True},
        {"step": 6, "loss": 0.125},
        {"step": 6, "val_psnr": 19.0, "val_frames": 3, "best": False},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save(tmp_path, 4, best=True)
    save(tmp_path, 6, best=False)
    return tmp_path


def save(run: Path, step: int, *, best: bool) -> None:
    header = {
        "step": step,
        "config": {"steps": 10, "network": {"fusion": "none"}},
        "num_bins": 4,
        "parameters": {"total": 1234, "trainable": 1000},
        "best": {"step": 4, "val_psnr": 20.0},
        "store": {"path": "S", "fingerprint": "f" * 64},
        "loss": 0.125,
        "versions": {"torch": "2"},
    }
    tensors = {"model.a": torch.ones(3), "ema.a": torch.zeros(3)}
    CheckpointFolder(run / "checkpoints").save(tensors, header, best=best)


def test_tells_progress_quality_size_and_origin(run: Path) -> None:
    assert run_facts(run) == {
        "kind": "run",
        "run": str(run),
        "step": 6,
        "steps": 10,
        "loss": 0.125,
        "val_psnr": 19.0,
        "best_psnr": 20.0,
        "best_step": 4,
        "parameters": 1234,
        "trainable": 1000,
        "device": "H200",
        "sessions": 2,
        "started": "2026-01-01T00:00:00+00:00",
        "parent": None,
        "store": "S",
        "store_fingerprint": "f" * 64,
        "checkpoints": ["best", "last", "step_000004", "step_000006"],
    }


def test_what_is_not_there_yet_is_none(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    facts = run_facts(run)
    assert (facts["step"], facts["steps"], facts["checkpoints"]) == (0, 10, [])
    assert [facts[key] for key in ("loss", "val_psnr", "best_psnr", "best_step")] == [None] * 4


def test_a_line_that_a_killed_process_left_unfinished_is_passed_over(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 0.0')
    assert run_facts(run)["loss"] == 0.125


def test_a_damaged_last_checkpoint_leaves_the_one_before(run: Path) -> None:
    for name in ("last", "step_000006"):
        (run / "checkpoints" / f"{name}.safetensors").write_bytes(b"torn")
    assert run_facts(run)["step"] == 4


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"sessions": [], "store": {}}', '{"sessions": [{}], "store": 1}']
)
def test_a_damaged_run_json_is_named(run: Path, content: str) -> None:
    (run / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
        run_facts(run)


def test_a_damaged_line_is_named(run: Path) -> None:
    (run / "metrics.jsonl").write_text("what\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged"):
        run_facts(run)


def test_tells_what_a_checkpoint_says(run: Path) -> None:
    path = run / "checkpoints" / "best.safetensors"
    facts = checkpoint_facts(path)
    assert facts["bytes"] == path.stat().st_size
    expected = {
        "kind": "checkpoint",
        "step": 4,
        "steps": 10,
        "loss": 0.125,
        "best_psnr": 20.0,
        "best_step": 4,
        "parameters": 1234,
        "trainable": 1000,
    }
    expected |= {"fusion": "none", "num_bins": 4, "scale": 1, "voxels": None, "averaged": True, "store": "S"}
    assert {key: facts[key] for key in expected} == expected


def test_a_damaged_checkpoint_is_refused(run: Path) -> None:
    path = run / "checkpoints" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint_facts(path)
