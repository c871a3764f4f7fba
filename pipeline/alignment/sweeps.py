"""Sweeping a window of spikes along an image: how badly the image fits the spikes counted a little earlier or later.

Each image is regressed (`physics`) on the counts of its window moved by every offset of a range. The squared residuals
are kept apart by tile of the picture, so that `offsets` can tell how sure the best offset is. A window moved by one
spike frame gains a frame and loses one: a sweep costs little more than one count.

A blurry frame is compared with its exposure. A sharp frame shows one instant: it is compared with short windows around
it, of several half-widths, as far as the recording reaches.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.dat import unpack_rows
from pipeline.physics import U8, Doubles, fit_light, grey_light, unclipped
from pipeline.storage.mapped import MappedArray
from pipeline.voxels import MAX_FRAMES_PER_BIN, bin_packed

Counts = npt.NDArray[np.int32]
Kind = Literal["blurry", "sharp"]

TILES_PER_SIDE = 8
HALF_WIDTHS = (8, 12, 16)
"""Of the windows around a sharp instant: shorter ones count too few spikes, longer ones blur what moves."""
SHORT_HALF_WIDTHS = (4, 6)
"""Where the recording ends too soon for those."""
FAIR_REACH, LEAST_REACH = 8, 4
"""Spike frames to both sides that a sweep of several widths, and any sweep, must be able to move by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """The residuals of one image over a sweep.

    Attributes:
        kind: of the image.
        offsets: (D,) int64, consecutive spike frames by which the window was moved.
        residuals: (W, TILES, D) float64 squared residuals of each tile of the picture, in units of the image's
            residual variance per pixel at its best offset; for W windows of different widths.
        r2: of the fit where the window is now.
    """

    kind: Kind
    offsets: npt.NDArray[np.int64]
    residuals: Doubles
    r2: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Instant:
    """The instant of a sharp frame: in the middle of spike frame `index`, or at its beginning."""

    index: int
    at_beginning: bool

    def window(self, half_width: int) -> tuple[int, int]:
        """Spike frames [start, stop) around it, as many before as after."""
        return self.index - half_width, self.index + half_width + (not self.at_beginning)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Packed spikes (T, H, ceil(W / 8)) of a store, their width in pixels, and RGB pixels per spike pixel."""

    spikes: MappedArray | U8
    width: int
    scale: int

    def count(self, start: int, stop: int) -> Counts:
        """How often each pixel fired in frames [start, stop), (H, W)."""
        edges = [*range(start, stop, MAX_FRAMES_PER_BIN), stop]
        parts = (bin_packed(self.spikes[a:b], 1, self.width)[0] for a, b in itertools.pairwise(edges))
        total = np.zeros((self.spikes.shape[1], self.width), np.int32)
        for part in parts:
            total += part
        return total

    def moved_counts(self, start: int, stop: int, offsets: range) -> Iterator[Counts]:
        """Counts of [start + d, stop + d) for every d of consecutive `offsets`; the same array, updated."""
        first, last = offsets[0], offsets[-1]
        counts = self.count(start + first, stop + first)
        leaving = unpack_rows(self.spikes[start + first : start + last], self.width)
        entering = unpack_rows(self.spikes[stop + first : stop + last], self.width)
        yield counts
        for left, entered in zip(leaving, entering, strict=True):
            counts -= left
            counts += entered
            yield counts

    def reach(self, start: int, stop: int, sweep: int) -> range:
        """Offsets up to `sweep` either way at which the window lies in the recording."""
        return range(-min(sweep, start), min(sweep, self.spikes.shape[0] - stop) + 1)


def sweep_blurry(recorded: Recorded, image: U8, span: tuple[int, int], sweep: int) -> Curves | None:
    """Sweep an exposure; None where the recording leaves no room, or image or counts are flat."""
    offsets = recorded.reach(*span, sweep)
    if len(offsets) < 3:
        return None
    return _sweep(recorded, image, span, offsets, "blurry")


def sweep_sharp(recorded: Recorded, image: U8, instant: Instant, sweep: int) -> Curves | None:
    """Sweep short windows around a sharp instant; None where the recording ends too near to it.

    Windows of all `HALF_WIDTHS` that can move far enough are used, else the two widest that can move at all.
    """
    widths = (*SHORT_HALF_WIDTHS, *HALF_WIDTHS)
    reaches = {h: recorded.reach(*instant.window(h), sweep) for h in widths}

    def able(least: int) -> list[int]:
        return [h for h in widths if {-min(sweep, least), min(sweep, least)} <= set(reaches[h])]

    usable = [h for h in able(FAIR_REACH) if h in HALF_WIDTHS]
    if len(usable) < 2:
        usable = able(LEAST_REACH)[-2:]
    if not usable:
        least = min(sweep, LEAST_REACH)
        usable = [h for h, offsets in reaches.items() if {-least, least} <= set(offsets)][-2:]
    if not usable:
        return None
    shared = range(max(reaches[h][0] for h in usable), min(reaches[h][-1] for h in usable) + 1)
    swept = [_sweep(recorded, image, instant.window(h), shared, "sharp") for h in usable]
    curves = [one for one in swept if one is not None]
    if not curves:
        return None
    return Curves(
        kind="sharp",
        offsets=curves[0].offsets,
        residuals=np.concatenate([one.residuals for one in curves]),
        r2=max(one.r2 for one in curves),
    )


def _sweep(
    recorded: Recorded, image: U8, window: tuple[int, int], offsets: range, kind: Kind
) -> Curves | None:
    now = fit_light(image, recorded.count(*window), recorded.scale)
    if not now.r2:
        return None
    grey = grey_light(image, recorded.scale, now.gamma)
    tiled = _Tiled(grey, unclipped(image, recorded.scale))
    residuals = np.stack([tiled.residuals(c) for c in recorded.moved_counts(*window, offsets)], axis=1)
    least = residuals.sum(axis=0).min()
    if not least > 0:
        return None
    return Curves(
        kind=kind,
        offsets=np.arange(offsets[0], offsets[-1] + 1),
        residuals=residuals[None] * (tiled.num_pixels / least),
        r2=now.r2,
    )


class _Tiled:
    """An image in tiles, to be regressed on many counts: only sums over each tile are needed."""

    def __init__(self, grey: Doubles, usable: npt.NDArray[np.bool_]) -> None:
        height, width = grey.shape
        rows = np.arange(height) * TILES_PER_SIDE // height
        columns = np.arange(width) * TILES_PER_SIDE // width
        tile = (rows[:, None] * TILES_PER_SIDE + columns).ravel()
        order = np.argsort(tile, kind="stable")
        self._order = order[usable.ravel()[order]]
        self._tiles, self._starts = np.unique(tile[self._order], return_index=True)
        values = grey.ravel()[self._order]
        self._grey = values - values.mean()  # centred, as the counts are: the line goes through 0
        self._squares = self._sums(self._grey**2)
        self.num_pixels = len(values)

    def residuals(self, counts: Counts) -> Doubles:
        """Squared residuals of the tiles, (TILES_PER_SIDE ** 2,), for the line that fits the whole image best."""
        x = counts.ravel()[self._order].astype(np.float64)
        x -= x.mean()
        squares, both = self._sums(x * x), self._sums(x * self._grey)
        total = float(squares.sum())
        slope = float(both.sum()) / total if total > 0 else 0.0
        found = np.zeros(TILES_PER_SIDE**2)
        found[self._tiles] = self._squares - 2 * slope * both + slope**2 * squares
        return found

    def _sums(self, values: Doubles) -> Doubles:
        return np.add.reduceat(values, self._starts)
