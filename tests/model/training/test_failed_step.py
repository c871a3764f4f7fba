from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.training.failed_step import FailedStep, failed_step_path, read_failed_step, write_failed_step
from pipeline.clips import Sample
from pipeline.errors import CheckpointError


def sample(kind: torch.dtype, offset: int) -> Sample:
    return Sample(*((torch.arange(24).reshape(2, 3, 4) + offset + i).to(kind) for i in range(3)))


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    batches = (sample(torch.uint8, 0), sample(torch.uint16, 5)._replace(sharp=torch.ones(3, 2).T))
    report = {"clips": [{"number": 3}], "diagnosis": None}
    path = tmp_path / "failed.safetensors"
    write_failed_step(path, FailedStep(step=6, batches=batches, report=report))
    found = read_failed_step(path)
    assert found.step == 6 and found.report == report and len(found.batches) == 2
    for one, other in zip(found.batches, batches, strict=True):
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert load_file(path).keys() == {f"{i}.{name}" for i in range(2) for name in Sample._fields}


def test_refuses_other_files(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, other)
    (tmp_path / "text").write_text("no")
    for path in (other, tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="not the clips of a failed step"):
            read_failed_step(path)


def test_processes_write_files_of_their_own() -> None:
    assert failed_step_path(Path("run"), 122, 0, 1) == Path("run/failed_step_000123.safetensors")
    assert failed_step_path(Path("run"), 0, 1, 2) == Path("run/failed_step_000001_process_1.safetensors")


def test_a_file_without_instants_is_read(tmp_path: Path) -> None:
    path = tmp_path / "failed.safetensors"
    write_failed_step(path, FailedStep(step=6, batches=(sample(torch.uint8, 0),), report={}))
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "0.instants"}  # noqa: SIM118
    save_file(tensors, path, metadata=about)
    (found,) = read_failed_step(path).batches
    assert torch.equal(found.sharp, sample(torch.uint8, 0).sharp) and not found.instants.numel()
