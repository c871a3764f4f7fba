import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.checkpoint_file import load_tensors, read_header, save_checkpoint, verify
from pipeline.errors import CheckpointError


def header(step: int = 5) -> dict[str, object]:
    return {"step": step, "config": {"seed": 0}, "num_bins": 4}


def tensors() -> dict[str, torch.Tensor]:
    return {"model.a": torch.arange(3.0), "ema.a": torch.zeros(3)}


def check(path: Path) -> None:
    verify(path, read_header(path)["digest"])


def test_tensors_of_any_layout_and_type_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wide = torch.rand(4, 5)
    state = {"model.t": wide.T, "model.w": wide, "model.h": torch.rand(3).half(), "model.s": torch.tensor(2)}
    state["model.x"] = state["model.w"]
    save_checkpoint(path, state, header())
    found = load_tensors(path)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    assert found["model.h"].dtype == torch.float16 and found["model.s"].dtype == torch.int64
    assert load_tensors(path, "model.t", "model.s").keys() == {"model.t", "model.s"}
    check(path)


def test_any_program_can_open_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", tensors(), header())
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["spk"])["step"] == 5


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_checkpoint(tmp_path / f"{name}.safetensors", tensors(), header())
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_a_write_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tensors(), header(1))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, tensors(), header(2))
    assert read_header(path)["step"] == 1 and list(tmp_path.iterdir()) == [path]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tensors(), header())
    good = path.read_bytes()
    for position in range(len(good)):
        flipped = good[position] ^ (1 << position % 8)
        path.write_bytes(good[:position] + bytes([flipped]) + good[position + 1 :])
        with pytest.raises(CheckpointError):
            check(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tensors(), header())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        check(path)


def test_foreign_files_and_other_formats_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no spk header"):
        read_header(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_header(tmp_path / "absent.safetensors")
    newer = json.dumps(header() | {"format": 99, "digest": "x"})
    save_file({"a": torch.ones(1)}, tmp_path / "newer.safetensors", {"spk": newer})
    with pytest.raises(CheckpointError, match="format 99; this version reads 1"):
        read_header(tmp_path / "newer.safetensors")


def test_a_header_must_be_json_throughout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "x.safetensors", tensors(), header() | {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
