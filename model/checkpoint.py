"""What checkpoints hold and where they are: `CheckpointInfo`, `load_network`, and the folder of a run's checkpoints.

Tensors are `model.*`, `ema.*` (the averaged parameters) and `optimizer.*`.
"""

import contextlib
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoint_file import SUFFIX, load_tensors, read_header, save_checkpoint, verify
from model.lora import LoraConfig, merge
from model.network import NetworkConfig, SpikeVRT, build_network
from pipeline.config import build
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import sync_directory
from pipeline.stats import Normalization

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What the header of a checkpoint says.

    Attributes:
        path: the file.
        step: steps done.
        config: the resolved training config, as plain values.
        num_bins: bins of the voxel grids the network takes.
        scale: RGB pixels per spike pixel along a side, in training.
        voxels: name of the voxel grids in the store it was trained on.
        normalization: of these voxel grids; None for a network that takes none.
        store: `path` and `fingerprint` of that store.
        best: `step` and `val_psnr` of the best validation so far; None before the first.
        averaged: whether the averaged weights are kept beside the last ones.
        versions: of the software that wrote it.
        header: all of it, as plain values.
    """

    path: Path
    step: int
    config: Mapping[str, Any]
    num_bins: int
    scale: int
    voxels: str | None
    normalization: Normalization | None
    store: Mapping[str, str]
    best: Mapping[str, float] | None
    averaged: bool
    versions: Mapping[str, str]
    header: Mapping[str, Any]


def versions() -> dict[str, str]:
    """The versions that decide whether a run can be repeated."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
    }


def read_info(path: Path) -> CheckpointInfo:
    """Read the header of a checkpoint, and check every byte of the file against its digest.

    Raises:
        CheckpointError: no such file, not a checkpoint of this program, damaged, or of a newer format.
    """
    header = read_header(path)
    verify(path, header["digest"])
    normalization = header.get("normalization")
    try:
        with safe_open(path, framework="pt") as file:
            averaged = any(name.startswith("ema.") for name in file.keys())  # noqa: SIM118 - not a mapping
        return CheckpointInfo(
            path=path,
            step=int(header["step"]),
            config=header["config"],
            num_bins=int(header["num_bins"]),
            scale=int(header.get("scale", 1)),
            voxels=header.get("voxels"),
            normalization=build(Normalization, normalization, f"{path}") if normalization else None,
            store=header.get("store", {}),
            best=header.get("best"),
            averaged=averaged,
            versions=header.get("versions", {}),
            header=header,
        )
    except (SafetensorError, ConfigError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the header does not make sense: {error}") from error


def network_weights(path: Path) -> dict[str, Tensor]:
    """The weights to use: the averaged ones where they were kept, else the last ones; low-rank updates are merged.

    Raises:
        CheckpointError: the file cannot be read, or its header does not make sense.
    """
    model, ema = load_tensors(path, "model."), load_tensors(path, "ema.")
    weights = {name.removeprefix("model."): tensor for name, tensor in model.items()}
    weights |= {name.removeprefix("ema."): tensor for name, tensor in ema.items()}
    try:
        lora = build(LoraConfig, read_header(path)["config"].get("lora", {}), f"{path}: lora")
    except ConfigError as error:
        raise CheckpointError(f"{path}: the header does not make sense: {error}") from error
    return merge(weights, lora)


def load_network(path: Path) -> tuple[SpikeVRT, CheckpointInfo]:
    """Build the trained network, on the CPU and in evaluation mode, with its averaged weights if there are any.

    Args:
        path: a checkpoint, or a run folder (its best checkpoint, else its last).

    Raises:
        CheckpointError: missing, damaged, or not of this network.
    """
    path = find_checkpoint(path)
    info = read_info(path)
    try:
        config = build(NetworkConfig, info.config["network"], f"{path}: network")
        network = build_network(config, info.num_bins)
        network.load_state_dict(network_weights(path))
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this network: {error}") from error
    return network.eval(), info


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a file; in a run folder the best checkpoint, else the last good one.

    Raises:
        CheckpointError: there is none.
    """
    if not path.is_dir():
        return path
    folder = CheckpointFolder(path / "checkpoints")
    if folder.best.is_file():
        return folder.best
    last = folder.load_last()
    if last is None:
        raise CheckpointError(
            f"{path}: no checkpoints in this folder", "give a run folder or a checkpoint file"
        )
    return last.path


class CheckpointFolder:
    """The checkpoints of one run: `step_*`, the newest few; `last` and `best`, links to two of them.

    Args:
        path: the folder.
        keep: how many `step_*` to keep, at least 2 so that a damaged one has a predecessor.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = max(keep, 2)
        self.last = path / f"last{SUFFIX}"
        self.best = path / f"best{SUFFIX}"

    def steps(self) -> list[Path]:
        """The `step_*` files, the newest first."""
        files = self.path.glob(f"step_*{SUFFIX}")
        return sorted(files, key=lambda path: (len(path.name), path.name), reverse=True)

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, best: bool) -> Path:
        """Write `step_<header["step"]>`, make it `last`, and `best` too if so, and drop the oldest."""
        path = self.path / f"step_{header['step']:06d}{SUFFIX}"
        save_checkpoint(path, tensors, header)
        _link(path, self.last)
        if best:
            _link(path, self.best)
        for old in self.steps()[self.keep :]:
            old.unlink()
        return path

    def load_last(self) -> CheckpointInfo | None:
        """The newest checkpoint that is whole; None if there are no checkpoints.

        Raises:
            CheckpointError: there are some, and all are damaged.
        """
        found = [path for path in (self.last, *self.steps()) if path.exists()]
        for path in found:
            try:
                info = read_info(path)
            except CheckpointError as error:
                logger.warning("%s; falling back to the one before", error.problem)
                continue
            if path != self.last:
                logger.warning("going on from %s (step %d)", path, info.step)
            return info
        if found:
            raise CheckpointError(f"{self.path}: all {len(found)} checkpoints are damaged", "start a new run")
        return None


def _link(source: Path, target: Path) -> None:
    """Make `target` another name of `source` (a copy where the file system has no hard links), atomically."""
    temporary = target.with_name(f".{target.name}.partial")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(temporary, target)
    sync_directory(target.parent)
