import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from model.checkpoint import CheckpointFolder
from model.run_facts import checkpoint_facts, run_facts
from model.training.run_folder import RunFolder
from model.training.session import recorded
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
    expected = {
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
        "state": "killed",
        "logged_step": 6,
        "eta_s": None,
        "heard_s": None,
        "error": None,
        "lineage": [],
        "store_now": "unreadable",
        "problems": [],
    }
    facts = run_facts(run)
    assert {key: facts[key] for key in expected} == expected
    assert json.loads(json.dumps(facts)) == facts
    assert facts["curves"]["loss"] == [[2, 0.5], [4, 0.25], [6, 0.125]]
    assert facts["curves"]["val_psnr"] == [[4, 20.0], [6, 19.0]] and facts["curves"]["data_share"] == []


def test_what_is_not_there_yet_is_none(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    facts = run_facts(run)
    assert (facts["step"], facts["steps"], facts["checkpoints"], facts["problems"]) == (0, 10, [], [])
    assert [facts[key] for key in ("loss", "val_psnr", "best_psnr", "best_step")] == [None] * 4


def test_a_line_that_a_killed_process_left_unfinished_is_passed_over(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 0.0')
    assert run_facts(run)["loss"] == 0.125


def test_the_best_so_far_is_known_before_the_first_checkpoint(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    facts = run_facts(run)
    assert (facts["best_psnr"], facts["best_step"]) == (20.0, 4)


def test_a_damaged_last_checkpoint_is_named_and_leaves_the_one_before(run: Path) -> None:
    (run / "checkpoints" / "last.safetensors").write_bytes(b"torn")  # and with it step_000006, the same file
    facts = run_facts(run)
    assert facts["step"] == 4
    found = [(one["name"], one["also"], one["step"], one["whole"]) for one in facts["checkpoint_list"]]
    assert found == [("step_000006", ["last"], None, False), ("step_000004", ["best"], 4, True)]
    assert len(facts["problems"]) == 1 and "step_000006.safetensors" in facts["problems"][0]


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"sessions": [], "store": {}}', '{"sessions": [1], "store": {}}', "\xff"]
)
def test_a_damaged_run_json_is_named_and_the_rest_told(run: Path, content: str) -> None:
    (run / "run.json").write_bytes(content.encode("latin-1"))
    facts = run_facts(run)
    assert (facts["step"], facts["loss"], facts["state"], facts["sessions"]) == (6, 0.125, None, 0)
    assert len(facts["problems"]) == 1 and "run.json: damaged" in facts["problems"][0]


def test_all_that_is_damaged_is_named(run: Path) -> None:
    (run / "run.json").unlink()
    (run / "config.yaml").write_text("steps: [")
    (run / "metrics.jsonl").write_text('what\n{"step": 2, "loss": 0.5}\n')
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"torn")
    facts = run_facts(run)
    named = ("run.json", "config.yaml", "metrics.jsonl: damaged in line 1", "step_000006", "step_000004")
    assert len(facts["problems"]) == len(named)
    assert all(name in problem for name, problem in zip(named, facts["problems"], strict=True))
    assert facts["loss"] == 0.5


def end(run: Path, **facts: object) -> None:
    about = json.loads((run / "run.json").read_text())
    about["sessions"][-1] |= facts
    (run / "run.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("how", "error"), [("finished", None), ("interrupted", None), ("failed", "no clips")]
)
def test_tells_how_it_ended(run: Path, how: str, error: str | None) -> None:
    end(run, how=how, error=error, step=6, ended="2026-01-03T00:00:00+00:00")
    facts = run_facts(run)
    assert (facts["state"], facts["error"]) == (how, error)


def test_a_run_of_before_that_went_to_its_end_is_finished(run: Path) -> None:
    (run / "config.yaml").write_text("steps: 6\n")
    assert run_facts(run)["state"] == "finished"


def test_a_run_that_a_process_holds_is_running_with_an_eta(run: Path) -> None:
    line = {"step": 8, "loss": 0.1, "eta_s": 7.0, "time": datetime.now(UTC).isoformat()}
    folder = RunFolder(run)
    with folder.lock(), recorded(folder, "steps: 10\n", {"store": STORE}, {"from_step": 6}):
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        facts = run_facts(run)
    assert (facts["state"], facts["eta_s"], facts["logged_step"], facts["step"]) == ("running", 7.0, 8, 6)
    assert 0 <= facts["heard_s"] < 60
    assert (run_facts(run)["state"], run_facts(run)["eta_s"]) == ("finished", None)


def test_sessions_tell_where_they_went_and_what_changed(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    first, second = about["sessions"]
    first |= {"versions": {"torch": "2.12", "python": "3.11"}, "step": 4, "how": "failed", "error": "why"}
    second |= {"versions": {"torch": "2.13", "python": "3.11"}}
    (run / "run.json").write_text(json.dumps(about))
    one, two = run_facts(run)["session_list"]
    assert (one["from_step"], one["to_step"], one["how"], one["error"]) == (0, 4, "failed", "why")
    assert (two["from_step"], two["to_step"], two["how"], two["device"]) == (4, 6, None, "H200")
    assert (one["versions_changed"], two["versions_changed"]) == ({}, {"torch": ["2.12", "2.13"]})


def test_follows_where_the_weights_come_from(run: Path, tmp_path: Path) -> None:
    parent = run / "checkpoints" / "best.safetensors"
    about = json.loads((run / "run.json").read_text()) | {"parent": str(parent)}
    (run / "run.json").write_text(json.dumps(about))
    assert run_facts(run)["lineage"] == [{"path": str(parent), "step": 4}]
    (run / "run.json").write_text(json.dumps(about | {"parent": "vrt.pth"}))
    assert run_facts(run)["lineage"] == [{"path": "vrt.pth", "step": None}]


def test_long_curves_are_thinned(run: Path) -> None:
    lines = [{"step": step, "loss": float(step)} for step in range(1, 1201)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = run_facts(run)["curves"]["loss"]
    assert len(curve) == 60 and curve[0] == [20, 10.5] and curve[-1] == [1200, 1190.5]


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
