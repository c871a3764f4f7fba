import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.weights import read_weights
from pipeline.errors import CheckpointError


class Bomb:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict"])
def test_reads_a_torch_file_with_or_without_a_wrapper(tmp_path: Path, wrapper: str | None) -> None:
    state = {"a.weight": torch.arange(3.0)}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "x.pth")
    assert torch.equal(read_weights(tmp_path / "x.pth")["a.weight"], torch.arange(3.0))


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors")["a"].tolist() == [1, 1]


def test_runs_no_code_in_a_pickle(tmp_path: Path) -> None:
    torch.save({"a": Bomb(tmp_path / "exploded")}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "x.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("data", [b"", b"not weights at all", b"\xff" * 100])
def test_says_what_it_cannot_read(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        read_weights(tmp_path / name, "do this")


def test_refuses_other_things_than_tensors(tmp_path: Path) -> None:
    torch.save({"a": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="other things than named tensors"):
        read_weights(tmp_path / "x.pth")


def test_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pth: no such file") as caught:
        read_weights(tmp_path / "x.pth", "look elsewhere")
    assert caught.value.fix == "look elsewhere"
