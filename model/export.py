"""The verb `export`: a checkpoint to one file that runs without this code, checked against the network."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.exporting.formats import Format, load_onnx, load_pt2, require_packages, to_onnx, to_pt2, trace
from model.exporting.parity import (
    TOLERANCE,
    Agreement,
    Clip,
    Timing,
    agree,
    random_clip,
    real_clip,
    time_both,
)
from model.exporting.standalone import ClipShape, description, standalone
from model.parallel import Parallel
from model.restorer import Restorer, load_restorer
from pipeline.errors import StoreError, UsageError
from pipeline.files import write_atomic
from pipeline.reports import Progress, no_progress
from pipeline.storage.root import program_version
from pipeline.store import open_store

SIZE = (256, 256)
"""The tile that `spk evaluate` restores at a time."""
_STEPS = ("reading", "tracing", "writing", "checking", "timing")
_SUFFIXES: Mapping[str, Format] = {".pt2": "pt2", ".onnx": "onnx"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What to export.

    Attributes:
        frames: of a clip; None takes as many as in training.
        size: rows and columns of its RGB frames.
        opset: version of ONNX's operators; None takes that which PyTorch writes best.
        tolerance: largest difference from the network, in parts of white.
    """

    frames: int | None = None
    size: tuple[int, int] = SIZE
    opset: int | None = None
    tolerance: float = TOLERANCE


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written, or with `dry_run` would be.

    Attributes:
        about: what is stored in the file: inputs, outputs, where it comes from.
        agreements: how far it is from the network, a clip each; empty when nothing was written.
        timing: None when nothing was written.
        no_real_clip: why no recorded clip was compared; empty if one was.
    """

    file: Path
    format: Format
    num_bytes: int
    about: Mapping[str, Any]
    agreements: tuple[Agreement, ...]
    timing: Timing | None
    no_real_clip: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        timing = None if self.timing is None else asdict(self.timing) | {"ratio": self.timing.ratio}
        return {
            "file": str(self.file),
            "format": self.format,
            "bytes": self.num_bytes,
            "about": dict(self.about),
            "parity": [asdict(agreement) for agreement in self.agreements],
            "timing": timing,
            "seconds": self.seconds,
        }


def export(
    checkpoint: Path,
    file: Path,
    config: ExportConfig | None = None,
    *,
    store: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write a network with its normalization as one program, after it was found to compute the same.

    Args:
        checkpoint: a file, or a run folder.
        file: .pt2 or .onnx; it appears whole, or not at all.
        store: to compare on a recorded clip; None takes the one the network was trained on, if it is there.

    Raises:
        UsageError: the file is there already, of another kind, or needs packages that are not installed.
        CheckpointError: the checkpoint cannot be used.
        ParityError: the program computes something else than the network.
    """
    started = time.monotonic()
    config = config or ExportConfig()
    kind = _format_of(file, overwrite)
    require_packages(kind)

    def begin(step: str) -> None:
        progress(_STEPS.index(step), len(_STEPS), step)

    begin("reading")
    restorer = load_restorer(checkpoint, Parallel(device=torch.device("cpu")))
    shape = _shape(restorer, config)
    about = description(restorer, shape, program_version())
    recorded, why_not = _recorded_clip(restorer, shape, store)
    agreements, timing, content = (), None, b""
    if not dry_run:
        begin("tracing")
        traced = trace(standalone(restorer), shape)
        begin("writing")
        content = to_pt2(traced, about) if kind == "pt2" else to_onnx(traced, about, config.opset)
        begin("checking")
        program = load_pt2(content) if kind == "pt2" else load_onnx(content)
        clips = [random_clip(shape), *([] if recorded is None else [recorded])]
        agreements = agree(restorer, program, clips, config.tolerance)
        begin("timing")
        timing = time_both(restorer, program, clips[-1])
        write_atomic(file, content)
    return ExportReport(
        file=file,
        format=kind,
        num_bytes=len(content),
        about=about,
        agreements=agreements,
        timing=timing,
        no_real_clip=why_not,
        seconds=time.monotonic() - started,
    )


def _format_of(file: Path, overwrite: bool) -> Format:
    kind = _SUFFIXES.get(file.suffix.lower())
    if kind is None:
        raise UsageError(f"-o {file}: programs are .pt2 or .onnx files", f"-o {file.with_suffix('.pt2')}")
    if file.exists() and not overwrite:
        raise UsageError(f"{file}: is there already", "--overwrite, or another -o")
    return kind


def _shape(restorer: Restorer, config: ExportConfig) -> ClipShape:
    height, width = config.size
    return ClipShape(
        frames=config.frames or restorer.num_frames,
        height=height,
        width=width,
        num_bins=restorer.info.num_bins if restorer.takes_spikes else None,
        scale=restorer.info.scale,
        takes_instants=restorer.takes_instants,
    )


def _recorded_clip(restorer: Restorer, shape: ClipShape, store: Path | None) -> tuple[Clip | None, str]:
    """A clip of the store, or why there is none; a store that was asked for has to be usable."""
    place = store or restorer.info.store.get("path")
    if place is None:
        return None, "the checkpoint names no store"
    try:
        opened = open_store(Path(place))
        voxels = opened.voxel_name(restorer.info.voxels) if restorer.takes_spikes else None
        clip = real_clip(opened, voxels, shape)
    except (StoreError, UsageError) as error:
        if store is not None:
            raise
        return None, error.problem
    if clip is None:
        return None, f"{place} has no clip of {shape.frames} frames of {shape.height}x{shape.width}"
    return clip, ""
