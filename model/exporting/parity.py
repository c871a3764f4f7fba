"""Whether an exported program computes what the network does, and how fast."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.exporting.formats import Run
from model.exporting.standalone import ClipShape
from model.restorer import Restorer
from pipeline.clips import sharp_instants
from pipeline.errors import ParityError
from pipeline.store import Sequence, Store

TOLERANCE = 1.0e-3
"""Largest difference of a value in [0, 1]: a quarter of a step of 8 bits."""
ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Stored bytes: blurry uint8 (1, T, 3, H, W), and counts (1, T, K, h, w) or None; instants (1, T) or None."""

    name: str
    blurry: Tensor
    counts: Tensor | None
    instants: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What an exported program takes of it, by name."""
        given = {"blurry": self.blurry.float() / 255}
        if self.counts is not None:
            given["voxels"] = self.counts.float()
        if self.instants is not None:
            given["instants"] = self.instants
        return given


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far a program is from the network on one clip, in parts of white."""

    clip: str
    max_difference: float
    mean_difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Median seconds for a clip, taken in turns."""

    network_s: float
    program_s: float

    @property
    def ratio(self) -> float:
        """Of the program's time to the network's."""
        return self.program_s / self.network_s


def random_clip(shape: ClipShape, seed: int = 0) -> Clip:
    """Noise, of a few spikes in every bin."""
    generator = torch.Generator().manual_seed(seed)
    blurry = torch.randint(0, 256, shape.blurry, dtype=torch.uint8, generator=generator)
    counts = None
    if shape.voxels is not None:
        counts = torch.randint(0, 8, shape.voxels, dtype=torch.uint8, generator=generator)
    instants = torch.rand(shape.blurry[:2], generator=generator) if shape.takes_instants else None
    return Clip(name="random", blurry=blurry, counts=counts, instants=instants)


def real_clip(store: Store, voxels: str | None, shape: ClipShape) -> Clip | None:
    """The middle of the first recorded clip that is long and large enough; None where there is none.

    Args:
        voxels: name of the voxel grids; None for a network that takes none.
    """
    if store.scale != shape.scale:
        return None
    for split in sorted(store.splits, key="train".__eq__):  # what was not learned from comes first
        for sequence in store.sequences(split):
            clip = _cut(sequence, voxels, shape)
            if clip is not None:
                return clip
    return None


def _cut(sequence: Sequence, voxels: str | None, shape: ClipShape) -> Clip | None:
    start = next((run[0] for run in sequence.runs if run[1] - run[0] >= shape.frames), None)
    if start is None or sequence.blurry is None:
        return None
    *_, height, width = sequence.blurry.shape
    if height < shape.height or width < shape.width:
        return None
    scale = shape.scale
    top, left = (height - shape.height) // 2 // scale, (width - shape.width) // 2 // scale  # in spike pixels
    frames = slice(start, start + shape.frames)
    rows, columns = (
        slice(first, first + side // scale) for first, side in ((top, shape.height), (left, shape.width))
    )
    part = frames, slice(None), *(slice(s.start * scale, s.stop * scale) for s in (rows, columns))
    blurry = torch.tensor(sequence.blurry[part])[None]
    counts = None
    if voxels is not None:
        grids = sequence.voxels(voxels)
        if grids.shape[1] != shape.num_bins:
            return None
        counts = torch.tensor(grids[frames, :, rows, columns])[None]
    instants = torch.from_numpy(sharp_instants(sequence))[None, frames] if shape.takes_instants else None
    return Clip(name=sequence.key, blurry=blurry, counts=counts, instants=instants)


def agree(restorer: Restorer, program: Run, clips: Iterable[Clip], tolerance: float) -> tuple[Agreement, ...]:
    """Compare a program with the network as `spk evaluate` runs it.

    Raises:
        ParityError: they differ by more than `tolerance` somewhere, or the program's values are not finite.
    """
    found = []
    for clip in clips:
        difference = (program(clip.inputs) - _restore(restorer, clip)).abs()
        largest = difference.max().item()
        if not largest <= tolerance:
            raise ParityError(
                f"the exported program differs from the network by {largest:.3g} on the {clip.name} clip, more than "
                f"{tolerance:g} of white; nothing was written",
                "another format or --opset, or --tolerance if that is good enough",
            )
        found.append(
            Agreement(clip=clip.name, max_difference=largest, mean_difference=difference.mean().item())
        )
    return tuple(found)


def time_both(restorer: Restorer, program: Run, clip: Clip, rounds: int = ROUNDS) -> Timing:
    """How long network and program take for a clip, in turns; both have run before."""
    inputs, spent = clip.inputs, ([], [])
    for _ in range(rounds):
        for which, call in enumerate((lambda: _restore(restorer, clip), lambda: program(inputs))):
            spent[which].append(_seconds(call))
    return Timing(network_s=statistics.median(spent[0]), program_s=statistics.median(spent[1]))


def _restore(restorer: Restorer, clip: Clip) -> Tensor:
    with torch.inference_mode():
        return restorer(clip.blurry, clip.counts, clip.instants).clamp(0, 1)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
