"""Restoring long, large sequences piece by piece, without seams.

A sequence is cut into clips of a few frames, and each clip into tiles. Neighbouring pieces overlap. Of every overlap
the outer quarters, where a network sees the cut edge, are thrown away, and across the middle half one piece fades
into the other. So the result does not depend on the cuts at all as long as a network looks no further than a quarter
of the overlap. Where the pieces agree, their blend is that very value, bit for bit.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from model.shortage import is_out_of_memory
from pipeline.errors import UsageError

logger = logging.getLogger(__name__)

GRID = 8
"""Sides of tiles are multiples of this many pixels, so that the down-sampling of a network falls on the same pixels."""
SMALLEST_TILE = 64

T = TypeVar("T")
Span = tuple[int, int]
Restore = Callable[..., Tensor]
"""A network: blurry (1, T, 3, H, W) and voxels (1, T, K, h, w) or None to restored (1, T, 3, H, W). Where there are
instants (1, T), they are given as a keyword."""


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
        overlap: RGB pixels that neighbouring tiles share at least, at most half a tile.
        num_frames: frames of a clip.
        overlap_frames: frames that neighbouring clips share, at most half a clip.
        grid: tiles start at multiples of this many RGB pixels where their overlap allows it, so that the attention
            windows of a network hold the same pixels in every tile: eight tokens of a side, at an eighth of the
            resolution. A power of 2 from 8 on.
    """

    tile: int | None = None
    overlap: int = 32
    num_frames: int = 5
    overlap_frames: int = 2
    grid: int = 64

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
        if self.grid < GRID or self.grid & (self.grid - 1):
            raise ValueError(f"grid {self.grid} is not a power of 2 from {GRID} on")

    @classmethod
    def of_clips(
        cls,
        trained_frames: int,
        tile: int | None,
        overlap: int,
        num_frames: int | None,
        overlap_frames: int | None,
    ) -> "Tiling":
        """The tiling for a network that was trained on clips of `trained_frames`.

        Args:
            num_frames: None takes clips as long as in training.
            overlap_frames: None takes 2, or half of a shorter clip.
        """
        length = trained_frames if num_frames is None else num_frames
        shared = min(2, length // 2) if overlap_frames is None else overlap_frames
        return cls(tile=tile, overlap=overlap, num_frames=length, overlap_frames=shared)

    def require_scale(self, scale: int, of: str) -> None:
        """Raises UsageError where a tile is no whole number of the spike pixels of `of`."""
        if self.tile is not None and self.tile % scale:
            fix = f"tile={self.tile // (GRID * scale) * GRID * scale or GRID * scale}"
            raise UsageError(f"tile {self.tile} is not a multiple of {of}'s scale {scale}", fix)

    def halved(self, height: int, width: int, scale: int) -> "Tiling | None":
        """The tiling with half the tile, for frames of `height` x `width`; None below 64 pixels."""
        unit = math.lcm(GRID, scale)
        side = min(self.tile or max(height, width), max(height, width))
        tile = side // 2 // unit * unit
        if tile < max(SMALLEST_TILE, unit):
            return None
        return replace(self, tile=tile, overlap=min(self.overlap, tile // 2))

    def unit(self, scale: int) -> int:
        """What tile starts are multiples of: the grid, halved until tiles still advance, and the scale."""
        unit = self.grid
        while unit > GRID and self.tile is not None and math.lcm(unit, scale) > self.tile - self.overlap:
            unit //= 2
        return math.lcm(unit, scale)


def cut(length: int, piece: int, overlap: int, unit: int = 1) -> list[Span]:
    """Spans [start, stop) of at most `piece` that cover `length`, evenly spread, each sharing at least `overlap`.

    Starts are multiples of `unit`.

    Raises:
        ValueError: pieces that overlap so much do not advance.
    """
    if piece >= length:
        return [(0, length)]
    step = (piece - overlap) // unit * unit
    if step < 1:
        raise ValueError(f"pieces of {piece} that overlap by {overlap} do not advance by multiples of {unit}")
    last = -(-(length - piece) // unit) * unit
    count = -(-last // step)
    starts = [last * i // count // unit * unit for i in range(count + 1)]
    return [(start, min(start + piece, length)) for start in starts]


def fades(spans: list[Span], overlap: int) -> list[Tensor]:
    """How much each element of each span replaces what lies there from the spans before it, from 0 to 1, float32.

    The fade from one span to the next lies in the middle of what they share and is `overlap` / 2 long.
    """
    result = [torch.ones(spans[0][1] - spans[0][0])]
    for (_, last_stop), (start, stop) in itertools.pairwise(spans):
        middles = torch.arange(start, stop, dtype=torch.float64) + 0.5
        phase = (middles - (start + last_stop) / 2) / max(overlap / 2, 1.0e-9) + 0.5
        result.append((0.5 - 0.5 * torch.cos(math.pi * phase.clamp(0, 1))).float())
    return result


def restore_tiled(
    restore: Restore,
    blurry: Frames,
    voxels: Frames | None,
    tiling: Tiling,
    *,
    instants: Tensor | None = None,
    span: Span | None = None,
    since: int | None = None,
    scale: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Restore a sequence and yield its frames in order, each (3, H, W) on `device`, in the type that `restore` gives.

    Only one clip is in memory at a time, its inputs only a tile or two. The next tile is read while one is restored,
    and nothing waits for a CUDA device but the consumer of the frames. When memory runs out the tiles are halved from
    there on, and the clip is begun again.

    Args:
        restore: takes what `blurry` and `voxels` hold, in their types.
        blurry: (N, 3, H, W).
        voxels: (N, K, H / scale, W / scale), or None if `restore` takes none.
        instants: (N,), what to restore of each exposure, for a network that is told so.
        span: the frames [start, stop) to restore, which alone are looked at; None takes all.
        since: the first of them to yield; what comes before it is restored only as far as it fades into the rest,
            which is the same to the bit as without.
        scale: RGB pixels per spike pixel, along a side.

    Raises:
        ValueError: the shapes do not fit, or the tile is not a multiple of the scale.
        torch.OutOfMemoryError, RuntimeError, MemoryError: a tile of 64 pixels is too large (`is_out_of_memory`).
    """
    height, width = blurry.shape[-2:]
    if voxels is not None and (voxels.shape[0], voxels.shape[2] * scale, voxels.shape[3] * scale) != (
        blurry.shape[0],
        height,
        width,
    ):
        raise ValueError(f"voxels {voxels.shape} do not fit frames {blurry.shape} at scale {scale}")
    if tiling.tile is not None and tiling.tile % scale:
        raise ValueError(f"tile {tiling.tile} is not a multiple of scale {scale}")
    first, stop = span or (0, blurry.shape[0])
    since = first if since is None else since
    if since >= stop:
        return
    spans = cut(stop - first, tiling.num_frames, tiling.overlap_frames)
    clips = [(first + a, first + b) for a, b in spans]
    shared: list[Tensor] = []
    begin = _first_needed(clips, since)
    for i, (clip, fade) in enumerate(zip(clips, fades(spans, tiling.overlap_frames), strict=True)):
        if i < begin:
            continue
        told = restore if instants is None else partial(restore, instants=instants[None, slice(*clip)])
        restored, tiling = _restore_or_halve(told, blurry, voxels, clip, tiling, scale, device)
        frames = [
            torch.lerp(old, new, share)
            for old, new, share in zip(shared, restored, fade.tolist(), strict=False)
        ] + list(restored[len(shared) :])
        done = (clips[i + 1][0] if i + 1 < len(clips) else stop) - clip[0]
        yield from frames[max(since - clip[0], 0) : done]
        shared = [frame.clone() for frame in frames[done:]]
        del frames, restored  # the whole clip, while the next one is made


def _first_needed(clips: list[Span], since: int) -> int:
    """The first clip that frames from `since` on depend on."""
    showing = max(clip[0] for clip in clips if clip[0] <= since)
    return next(i for i, clip in enumerate(clips) if clip[1] > showing)


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
        except (RuntimeError, MemoryError) as error:
            smaller = tiling.halved(*blurry.shape[-2:], scale) if is_out_of_memory(error) else None
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
    """One clip, (T, 3, H, W)."""
    height, width = blurry.shape[-2:]
    tile, unit = tiling.tile or max(height, width), tiling.unit(scale)
    rows, columns = (cut(side, tile, tiling.overlap, unit) for side in (height, width))
    row_fades, column_fades = (
        [_to(device, fade) for fade in fades(spans, tiling.overlap)] for spans in (rows, columns)
    )

    def read(row: Span, column: Span) -> tuple[Tensor, Tensor | None]:
        counts = None if voxels is None else _read(voxels, clip, row, column, scale, device)
        return _read(blurry, clip, row, column, 1, device), counts

    parts = _read_ahead(read, list(itertools.product(rows, columns)))
    whole = None
    for row, row_fade in zip(rows, row_fades, strict=True):
        band = None
        for column, column_fade in zip(columns, column_fades, strict=True):
            frames, counts = (_to(device, part) for part in next(parts))
            restored = restore(frames, counts)[0]
            if band is None:
                band = restored.new_zeros(*restored.shape[:-1], width)
            _fade_in(band[..., slice(*column)], restored, column_fade)
        if whole is None:
            whole = band.new_zeros(*band.shape[:-2], height, width)
        _fade_in(whole[..., slice(*row), :], band, row_fade[:, None])
    return whole


def _fade_in(below: Tensor, above: Tensor, fade: Tensor) -> None:
    """Replace the share `fade` of `below`, in place; where both agree nothing changes, not even a bit."""
    below.lerp_(above, fade.to(below.dtype))


def _read_ahead(read: Callable[[Span, Span], T], tiles: list[tuple[Span, Span]]) -> Iterator[T]:
    """What `read` gives for each tile, reading the next one while the caller works on one."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(read, *tiles[0])
        for following in tiles[1:]:
            found = upcoming.result()
            upcoming = reader.submit(read, *following)
            yield found
        yield upcoming.result()


def _read(
    frames: Frames, clip: Span, row: Span, column: Span, scale: int, device: torch.device | str
) -> Tensor:
    """The part of (N, C, H, W) under a tile given in RGB pixels, as (1, T, C, h, w), ready to go to the device."""
    rows, columns = (slice(start // scale, stop // scale) for start, stop in (row, column))
    part = frames[slice(*clip), :, rows, columns]
    tensor = part if isinstance(part, Tensor) else torch.tensor(part)
    # From pinned memory alone a copy waits for nothing.
    pins = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pins else tensor)[None]


def _to(device: torch.device | str, part: Tensor | None) -> Tensor | None:
    return None if part is None else part.to(device, non_blocking=True)
