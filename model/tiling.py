"""Restoring long, large sequences piece by piece, without seams.

A sequence is cut into clips of a few frames, and each clip into tiles. Neighbouring pieces overlap. Of every overlap
the outer quarters, where a network sees the cut edge, are thrown away, and across the middle half one piece fades
into the other. So the result does not depend on the cuts at all as long as a network looks no further than a quarter
of the overlap. The weights are multiples of 1/256 that sum to exactly 1 and sums are in float64: where the pieces
agree, their blend is that very value, bit for bit.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

WEIGHT_LEVELS = 256
"""Blending weights are multiples of 1 / 256: a float32 times three of them still fits a float64 exactly."""
GRID = 8
"""Tiles start at multiples of this many pixels, so that the down-sampling of a network falls on the same pixels."""
SMALLEST_TILE = 64

Span = tuple[int, int]
Restore = Callable[[Tensor, Tensor | None], Tensor]
"""A network: blurry (1, T, 3, H, W) and voxels (1, T, K, h, w) or None to restored (1, T, 3, H, W)."""


class Frames(Protocol):
    """Tensors, arrays and memory-mapped arrays: (N, C, H, W), sliced with spans of step 1."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, selection: Any, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How to cut a sequence.

    Attributes:
        tile: side of a square tile in RGB pixels, a multiple of 8 and of the scale; None takes whole frames.
        overlap: RGB pixels that neighbouring tiles share, at most half a tile.
        num_frames: frames of a clip.
        overlap_frames: frames that neighbouring clips share, at most half a clip.
    """

    tile: int | None = None
    overlap: int = 32
    num_frames: int = 5
    overlap_frames: int = 2

    def __post_init__(self) -> None:
        if self.tile is not None and (self.tile < GRID or self.tile % GRID):
            raise ValueError(f"tile {self.tile} is not a positive multiple of {GRID} pixels")
        if self.overlap < 0 or (self.tile is not None and 2 * self.overlap > self.tile):
            raise ValueError(f"overlap {self.overlap} is not between 0 and half of tile {self.tile}")
        if self.num_frames < 1:
            raise ValueError(f"num_frames {self.num_frames} is not at least 1")
        if not 0 <= 2 * self.overlap_frames <= self.num_frames:
            raise ValueError(
                f"overlap_frames {self.overlap_frames} is not between 0 and half of {self.num_frames}"
            )

    def halved(self, height: int, width: int, scale: int) -> "Tiling | None":
        """The tiling with half the tile, for frames of `height` x `width`; None below 64 pixels."""
        unit = math.lcm(GRID, scale)
        side = min(self.tile or max(height, width), max(height, width))
        tile = side // 2 // unit * unit
        if tile < max(SMALLEST_TILE, unit):
            return None
        return replace(self, tile=tile, overlap=min(self.overlap, tile // 2))


def cut(length: int, piece: int, overlap: int, unit: int = 1) -> list[Span]:
    """Spans [start, stop) of at most `piece` that cover `length`, evenly spread, each sharing at least `overlap`.

    Starts are multiples of `unit`, which must divide `piece`.
    """
    if piece >= length:
        return [(0, length)]
    step = (piece - overlap) // unit * unit
    if step < 1 or piece % unit:
        raise ValueError(f"pieces of {piece} that overlap by {overlap} do not advance by multiples of {unit}")
    last = -(-(length - piece) // unit) * unit
    count = -(-last // step)
    starts = [last * i // count // unit * unit for i in range(count + 1)]
    return [(start, min(start + piece, length)) for start in starts]


def blending_weights(spans: list[Span], overlap: int) -> list[Tensor]:
    """The float64 weight of each element of each span; at every position they sum to exactly 1.

    The fade between two spans lies in the middle of what they share and is `overlap` / 2 long.
    """
    rises = [torch.ones(spans[-1][1], dtype=torch.float64)]
    middles = torch.arange(spans[-1][1], dtype=torch.float64) + 0.5
    for (_, stop), (start, _) in itertools.pairwise(spans):
        phase = (middles - (start + stop) / 2) / max(overlap / 2, 1.0e-9) + 0.5
        smooth = 0.5 - 0.5 * torch.cos(math.pi * phase.clamp(0, 1))
        rises.append((smooth * WEIGHT_LEVELS).round() / WEIGHT_LEVELS)
    rises.append(torch.zeros_like(rises[0]))
    return [(rises[i] - rises[i + 1])[start:stop] for i, (start, stop) in enumerate(spans)]


def restore_tiled(
    restore: Restore,
    blurry: Frames,
    voxels: Frames | None,
    tiling: Tiling,
    *,
    span: Span | None = None,
    scale: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Restore a sequence and yield its frames in order, each float64 (3, H, W) on `device`.

    Only one clip is in memory at a time. When a CUDA device runs out of memory the tiles are halved from there on, and
    the clip is begun again.

    Args:
        restore: takes what `blurry` and `voxels` hold, in their types.
        blurry: (N, 3, H, W).
        voxels: (N, K, H / scale, W / scale), or None if `restore` takes none.
        span: the frames [start, stop) to restore, which alone are looked at; None takes all.
        scale: RGB pixels per spike pixel, along a side.

    Raises:
        ValueError: the shapes do not fit, or the tile is not a multiple of the scale.
        torch.OutOfMemoryError: a tile of 64 pixels is too large.
    """
    height, width = blurry.shape[-2:]
    if voxels is not None and (voxels.shape[0], voxels.shape[2] * scale, voxels.shape[3] * scale) != (
        blurry.shape[0],
        height,
        width,
    ):
        raise ValueError(f"voxels {voxels.shape} do not fit frames {blurry.shape} at scale {scale}")
    first, stop = span or (0, blurry.shape[0])
    if first == stop:
        return
    spans = cut(stop - first, tiling.num_frames, tiling.overlap_frames)
    weights = blending_weights(spans, tiling.overlap_frames)
    clips = [(first + a, first + b) for a, b in spans]
    pending: dict[int, Tensor] = {}
    for i, (clip, weight) in enumerate(zip(clips, weights, strict=True)):
        restored, tiling = _restore_or_halve(restore, blurry, voxels, clip, tiling, scale, device)
        for frame, value, share in zip(range(*clip), restored, weight, strict=True):
            pending[frame] = pending.get(frame, 0) + value * share.item()
        done = clips[i + 1][0] if i + 1 < len(clips) else stop
        for frame in range(clip[0], done):
            yield pending.pop(frame)


def _restore_or_halve(
    restore: Restore,
    blurry: Frames,
    voxels: Frames | None,
    clip: Span,
    tiling: Tiling,
    scale: int,
    device: torch.device | str,
) -> tuple[Tensor, Tiling]:
    while True:
        try:
            return _restore_clip(restore, blurry, voxels, clip, tiling, scale, device), tiling
        except torch.OutOfMemoryError:
            smaller = tiling.halved(*blurry.shape[-2:], scale)
            if smaller is None:
                raise
        # Outside the handler, whose traceback would keep the tensors of the failed attempt alive.
        logger.warning(
            "out of memory with tiles of %s; going on with %d", tiling.tile or "a frame", smaller.tile
        )
        torch.cuda.empty_cache()
        tiling = smaller


def _restore_clip(
    restore: Restore,
    blurry: Frames,
    voxels: Frames | None,
    clip: Span,
    tiling: Tiling,
    scale: int,
    device: torch.device | str,
) -> Tensor:
    """One clip, float64 (T, 3, H, W)."""
    height, width = blurry.shape[-2:]
    unit, tile = math.lcm(GRID, scale), tiling.tile or max(height, width)
    rows, columns = (cut(side, tile, tiling.overlap, unit) for side in (height, width))
    row_weights, column_weights = (blending_weights(spans, tiling.overlap) for spans in (rows, columns))
    total = torch.zeros(clip[1] - clip[0], 3, height, width, dtype=torch.float64, device=device)
    for row, row_weight in zip(rows, row_weights, strict=True):
        for column, column_weight in zip(columns, column_weights, strict=True):
            frames = _read(blurry, clip, row, column, 1, device)
            counts = None if voxels is None else _read(voxels, clip, row, column, scale, device)
            weight = (row_weight[:, None] * column_weight).to(device)
            total[..., slice(*row), slice(*column)] += restore(frames, counts)[0].double() * weight
    return total


def _read(
    frames: Frames, clip: Span, row: Span, column: Span, scale: int, device: torch.device | str
) -> Tensor:
    """The part of (N, C, H, W) under a tile given in RGB pixels, as (1, T, C, h, w)."""
    rows, columns = (slice(start // scale, stop // scale) for start, stop in (row, column))
    part = frames[slice(*clip), :, rows, columns]
    tensor = part if isinstance(part, Tensor) else torch.tensor(part)
    return tensor.to(device)[None]
