import os
from pathlib import Path

import pytest
import torch

from model.checkpoint import (
    CheckpointFolder,
    find_checkpoint,
    load_network,
    network_weights,
    read_info,
)
from model.checkpoint_file import load_tensors, save_checkpoint
from model.network import NetworkConfig, build_network
from pipeline.config import to_plain
from pipeline.errors import CheckpointError

NETWORK = NetworkConfig(
    embed_dims=(8,) * 8,
    depths=(1,) * 8,
    num_heads=(2,) * 8,
    window=(2, 4, 4),
    indep_reconsts=(),
    deformable_groups=2,
    flow="none",
    spike_channels=(8, 8, 8, 8),
    spike_heads=2,
    fusion_heads=2,
)
NORMALIZATION = {
    "num_bins": 4, "transform": "log1p", "mean": 0.1, "std": 1.0 / 3.0, "num_values": 7, "split": "train"
}  # fmt: skip


def header(step: int = 5, **changes: object) -> dict[str, object]:
    plain = {"network": to_plain(NETWORK)}
    values = {"step": step, "config": plain, "num_bins": 4, "scale": 2, "normalization": NORMALIZATION}
    return values | {"best": {"step": 3, "val_psnr": 30.5}} | changes


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"model.a": torch.full((3,), value), "ema.a": torch.full((3,), -value), "model.b": torch.arange(4)}


def test_what_the_header_says_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, tensors(), header(voxels="k4", store={"fingerprint": "f"}))
    info = read_info(path)
    assert (info.step, info.num_bins, info.scale, info.voxels, info.averaged) == (5, 4, 2, "k4", True)
    assert info.normalization is not None and info.normalization.std == 1.0 / 3.0
    assert info.best == {"step": 3, "val_psnr": 30.5} and info.store == {"fingerprint": "f"}


def test_damage_anywhere_in_the_file_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", tensors(), header())
    damage(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="do not match their checksum"):
        read_info(tmp_path / "x.safetensors")


def test_weights_are_the_averaged_ones_and_the_buffers(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", tensors(), header())
    weights = network_weights(tmp_path / "x.safetensors")
    assert weights["a"].tolist() == [-1, -1, -1] and weights["b"].tolist() == [0, 1, 2, 3]


def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", tensors(), header(normalization={"mean": "high"}))
    with pytest.raises(CheckpointError, match="does not make sense"):
        read_info(tmp_path / "x.safetensors")


def test_keeps_the_newest_few_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", keep=2)
    for step in (2, 10, 100, 1_000_000):
        folder.save(tensors(step), header(step), best=step == 2)
    assert [path.name for path in folder.steps()] == ["step_1000000.safetensors", "step_000100.safetensors"]
    assert read_info(folder.best).step == 2 and read_info(folder.last).step == 1_000_000
    assert load_tensors(folder.best)["model.a"].tolist() == [2, 2, 2]
    assert not list(folder.path.glob(".*"))


def test_links_are_copies_where_the_file_system_has_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    folder = CheckpointFolder(tmp_path)
    folder.save(tensors(), header(), best=True)
    assert read_info(folder.best).step == read_info(folder.last).step == 5


def test_a_damaged_last_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(tensors(), header(step), best=False)
    damage(folder.steps()[0])  # `last` is another name of it
    info = folder.load_last()
    assert info is not None and info.step == 1
    assert "last.safetensors: damaged" in caplog.text and "going on from" in caplog.text
    damage(folder.steps()[1])
    with pytest.raises(CheckpointError, match="all 3 checkpoints are damaged"):
        folder.load_last()


def test_no_checkpoints_are_no_error(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "absent").load_last() is None


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\xff")


def test_builds_the_trained_network(tmp_path: Path) -> None:
    network = build_network(NETWORK, 4).eval()
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    state |= {f"model.{name}": torch.zeros_like(value) for name, value in network.named_parameters()}
    state |= {f"ema.{name}": value.detach() for name, value in network.named_parameters()}
    CheckpointFolder(tmp_path / "run" / "checkpoints").save(state, header(), best=False)
    found, info = load_network(tmp_path / "run")
    assert info.step == 5 and not found.training
    blurry, voxels = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(found(blurry, voxels), network(blurry, voxels))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", tensors(), header())
    with pytest.raises(CheckpointError, match="not a checkpoint of this network"):
        load_network(tmp_path / "x.safetensors")


def test_a_run_folder_means_its_best_checkpoint_or_else_its_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoints in this folder"):
        find_checkpoint(tmp_path)
    folder.save(tensors(), header(1), best=False)
    assert find_checkpoint(tmp_path) == folder.last
    folder.save(tensors(), header(2), best=True)
    assert find_checkpoint(tmp_path) == folder.best
    assert find_checkpoint(folder.last) == folder.last
