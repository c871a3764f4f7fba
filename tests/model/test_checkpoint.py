import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from model.checkpoint import (
    CheckpointFolder,
    _link,
    find_checkpoint,
    load_network,
    named_step,
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
    assert "step_000002.safetensors: damaged" in caplog.text and "going on from" in caplog.text
    damage(folder.steps()[1])
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
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
    folder.save(tensors(), header(1, best=None), best=False)
    assert find_checkpoint(tmp_path) == folder.path / "step_000001.safetensors"
    folder.save(tensors(), header(2, best=BEST), best=True)
    assert find_checkpoint(tmp_path) == folder.best
    assert find_checkpoint(folder.last) == folder.last


BEST = {"step": 2, "val_psnr": 30.5}


def made(path: Path, steps: Iterable[int] = range(1, 6), **settings: int) -> CheckpointFolder:
    """Checkpoints of which that of step 2 is the best."""
    folder = CheckpointFolder(path, **settings)
    for step in steps:
        folder.save(tensors(step), header(step, best=BEST if step > 1 else None), best=step == 2)
    return folder


@pytest.mark.parametrize("harm", ["damaged", "deleted"])
def test_a_best_that_is_lost_is_announced_and_the_newest_taken(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(tmp_path / "checkpoints")
    damage(folder.best) if harm == "damaged" else folder.best.unlink()
    assert find_checkpoint(tmp_path).samefile(folder.last)
    assert "the best checkpoint, of step 2, is lost; the newest whole one, of step 5" in caplog.text
    assert ("best.safetensors: damaged" in caplog.text) == (harm == "damaged")


def test_a_best_that_was_not_named_so_yet_is_found_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(tmp_path / "checkpoints", steps=(1, 2))
    folder.best.unlink()  # killed between two names
    assert find_checkpoint(tmp_path) == folder.path / "step_000002.safetensors" and not caplog.text
    start = folder.load_last()
    folder.mend(start, folder.find_best(start))
    assert folder.best.samefile(folder.last) and find_checkpoint(tmp_path) == folder.best


def test_keeps_the_checkpoints_of_every_so_many_steps_for_ever(tmp_path: Path) -> None:
    folder = made(tmp_path, steps=range(1, 12), keep=2, keep_every=4)
    assert [named_step(path) for path in folder.steps()] == [11, 10, 8, 4]
    assert read_info(folder.best).step == 2 and not list(tmp_path.glob(".*"))


def test_what_came_after_a_damaged_checkpoint_was_gone_back_from_gives_way(tmp_path: Path) -> None:
    folder = made(tmp_path)
    damage(folder.last)
    assert folder.load_last().step == 4
    folder.save(tensors(), header(4, best=BEST), best=False)  # the run took another course
    assert [named_step(path) for path in folder.steps()] == [4]
    folder.save(tensors(), header(6, best=BEST), best=False)
    assert [named_step(path) for path in folder.steps()] == [6, 4]


def test_the_newest_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.last.unlink()  # killed before the step had its second name
    os.link(folder.steps()[1], folder.last)
    assert folder.load_last().step == 5
    folder.mend(folder.load_last(), None)
    assert read_info(folder.last).step == 5


def test_a_step_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    first, second = made(tmp_path).steps()
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match=r"step_000004\.safetensors: holds step 5"):
        read_info(second)


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for name in (".last.safetensors.partial", ".step_000006.safetensors.x1y2.partial"):
        (tmp_path / name).write_bytes(b"half")
    before = {path.name for path in tmp_path.glob("[!.]*")}
    folder.mend(folder.load_last(), None)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_naming_a_checkpoint_as_it_is_named_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.save(tensors(5), header(5, best=BEST), best=False)
    _link(folder.last, folder.last.with_name("best.safetensors"))
    _link(folder.last, folder.best)
    assert not list(tmp_path.glob(".*")) and read_info(folder.best).step == 5
