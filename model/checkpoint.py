"""What checkpoints hold and where they are: `CheckpointInfo`, `load_network`, and the folder of a run's checkpoints.

Tensors are `model.*`, `ema.*` (the averaged parameters) and `optimizer.*`.
"""

import contextlib
import logging
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
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
from pipeline.files import PARTIAL, atomic_file, remove_partial, sync_directory
from pipeline.stats import Normalization

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What the header of a checkpoint says.

    Attributes:
        path: the file.
        step: steps done; None for published weights, which do not say.
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
    step: int | None
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
        CheckpointError: no such file, not a checkpoint of this program, damaged, of a newer format, or of another
            step than it is called by.
    """
    header = read_header(path)
    verify(path, header["digest"])
    if named_step(path) not in (None, header["step"]):
        raise CheckpointError(f"{path}: holds step {header['step']}", "give it the name of what it holds")
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
    file = find_checkpoint(path)
    info = read_info(file)
    try:
        config = build(NetworkConfig, info.config["network"], f"{file}: network")
        network = build_network(config, info.num_bins)
        network.load_state_dict(network_weights(file))
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not a checkpoint of this network: {error}") from error
    if read_header(file)["digest"] != info.header["digest"]:
        return load_network(path)  # a training put a better one in its place meanwhile
    return network.eval(), info


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a file; in a run folder the best checkpoint, else the newest that is whole.

    A best one that is damaged or gone is announced, with what is taken instead of it.

    Raises:
        CheckpointError: there is none, or all are damaged.
    """
    if not path.is_dir():
        return path
    folder = CheckpointFolder(path / "checkpoints")
    newest = folder.load_last()
    if newest is None:
        raise CheckpointError(
            f"{path}: no checkpoints in this folder", "give a run folder or a checkpoint file"
        )
    return (folder.find_best(newest) or newest).path


class CheckpointFolder:
    """The checkpoints of one run: `step_*`, and `last` and `best`, other names of two of them.

    Names of one file share its bytes: damage to `last` is damage to the `step_*` that it is, and what is left then
    is the one before.

    Args:
        path: the folder.
        keep: how many of the newest `step_*` to keep, at least 2 so that a damaged one has a predecessor.
        keep_every: keep those of every so many steps as well, for ever; 0 keeps none so.
    """

    def __init__(self, path: Path, keep: int = 2, keep_every: int = 0) -> None:
        self.path = path
        self.keep = max(keep, 2)
        self.keep_every = keep_every
        self.last = path / f"last{SUFFIX}"
        self.best = path / f"best{SUFFIX}"

    def steps(self) -> list[Path]:
        """The `step_*` files, the newest first."""
        return sorted(self.path.glob(f"step_*{SUFFIX}"), key=lambda path: named_step(path) or 0, reverse=True)

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, best: bool) -> Path:
        """Write `step_<header["step"]>`, make it `last`, and `best` too if so, and drop what is not to be kept.

        Raises:
            OSError: the disk is full or fails; every checkpoint that was there still is.
        """
        path = self._at(header["step"])
        save_checkpoint(path, tensors, header)
        _link(path, self.last)
        if best:
            _link(path, self.best)
        for old in self._outdated(header["step"]):
            old.unlink()
        return path

    def load_last(self) -> CheckpointInfo | None:
        """The newest checkpoint that is whole, whatever it is called; None if there are no checkpoints.

        Raises:
            CheckpointError: there are some, and all are damaged.
        """
        files = _distinct([*self.steps(), self.last, self.best])
        headers, damaged = [], 0
        for path in files:
            try:
                headers.append((int(read_header(path)["step"]), path))
            except (CheckpointError, ValueError, TypeError) as error:
                damaged += 1
                logger.warning("%s; falling back to the one before", getattr(error, "problem", error))
        for _, path in sorted(headers, key=lambda found: found[0], reverse=True):
            try:
                info = read_info(path)
            except CheckpointError as error:
                damaged += 1
                logger.warning("%s; falling back to the one before", error.problem)
                continue
            if damaged:
                logger.warning("going on from %s (step %d)", path, info.step)
            return info
        if files:
            raise CheckpointError(f"{self.path}: all {len(files)} checkpoints are damaged", "start a new run")
        return None

    def find_best(self, newest: CheckpointInfo) -> CheckpointInfo | None:
        """The best checkpoint that `newest` tells of, whole; None if it tells of none, or it is lost, which is said."""
        if newest.best is None:
            return None
        step = int(newest.best["step"])
        for path in (self.best, self._at(step), newest.path):
            if path.exists():
                try:
                    info = read_info(path)
                except CheckpointError as error:
                    logger.warning("%s", error.problem)
                    continue
                if info.step == step:
                    return info
        logger.warning(
            "%s: the best checkpoint, of step %d, is lost; the newest whole one, of step %d, takes its place",
            *(self.path, step, newest.step),
        )
        return None

    def mend(self, start: CheckpointInfo | None, best: CheckpointInfo | None) -> None:
        """Tidy up after a run that was killed, before it goes on; nobody else may be writing.

        Args:
            start: what it goes on from: it is `last` from now on.
            best: is `best` from now on.
        """
        remove_partial(self.path)
        for info, name in ((start, self.last), (best, self.best)):
            if info and not (name.exists() and name.samefile(info.path)):
                _link(info.path, name)

    def _at(self, step: int) -> Path:
        return self.path / f"step_{step:06d}{SUFFIX}"

    def _outdated(self, newest: int) -> list[Path]:
        """The `step_*` files not to be kept beside that of step `newest`.

        Later ones than that are of a course that the run did not take: it went on from before them, as they were
        damaged.
        """
        numbered = [(number, path) for path in self.steps() if (number := named_step(path)) is not None]
        later = [path for number, path in numbered if number > newest]
        earlier = [(number, path) for number, path in numbered if number <= newest][self.keep :]
        return later + [
            path for number, path in earlier if not (self.keep_every and number % self.keep_every == 0)
        ]


def named_step(path: Path) -> int | None:
    """The step that the name of a `step_*` file tells; None for other names."""
    number = path.name.removeprefix("step_").removesuffix(SUFFIX)
    return int(number) if path.name.startswith("step_") and number.isdecimal() else None


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """The files that are there, each once, under the first of its names."""
    files: dict[tuple[int, int], Path] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            files.setdefault((found.st_dev, found.st_ino), path)
    return list(files.values())


def _link(source: Path, target: Path) -> None:
    """Make `target` another name of `source` (a copy where the file system has no hard links), atomically."""
    temporary = target.with_name(f".{target.name}{PARTIAL}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as whole, atomic_file(target) as file:
            shutil.copyfileobj(whole, file)
        return
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # renaming to another name of the same file does nothing
    sync_directory(target.parent)
