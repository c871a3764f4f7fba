"""Voxel grids with other spikes than the recorded ones, to find out what a network makes of them.

They are indexed like stored grids and made at every reading from what is stored. What is random depends on the place
in the whole, so that overlapping windows agree.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.respike import raise_threshold
from pipeline.storage.selections import Selectable, Span


class Grids(Protocol):
    """Spike counts (N, K, H, W): stored, virtual, or in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, selection: Any, /) -> npt.NDArray[Any]: ...


class NoSpikes(Selectable):
    """Voxel grids of the same size and type without one spike in them."""

    def __init__(self, grids: Grids) -> None:
        self.shape, self.dtype = grids.shape, grids.dtype

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        out[...] = 0


class OtherFrames(Selectable):
    """Voxel grids of chosen frames, in a chosen order.

    Args:
        frames: which of the grids stands at each place; None where none does, which cannot be read.
    """

    def __init__(self, grids: Grids, frames: Sequence[int | None]) -> None:
        self.shape, self.dtype = (len(frames), *grids.shape[1:]), grids.dtype
        self._grids, self._frames = grids, tuple(frames)

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        (start, stop), *window = spans
        for place, counts in zip(range(start, stop), out, strict=True):
            frame = self._frames[place]
            if frame is None:
                raise IndexError(f"there are no counts of frame {place}")
            counts[...] = self._grids[(frame, *(slice(*span) for span in window))]


class HigherThreshold(Selectable):
    """Voxel grids of a camera with a whole multiple of the threshold: every m-th spike of each pixel.

    The charge that a pixel starts an exposure with is drawn by `seed`, uniform in 0..m-1 spikes.
    """

    def __init__(self, grids: Grids, threshold: int, seed: int) -> None:
        self.shape, self.dtype = grids.shape, grids.dtype
        self._grids, self._threshold, self._seed = grids, threshold, np.uint64(seed)

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        from pipeline.respike_kernel import draw_phases  # numba: 0.3 s that few commands need to pay

        frames, bins, rows, columns = spans
        before = (slice(*frames), slice(0, bins[1]), slice(*rows), slice(*columns))
        counts = np.array(self._grids[before], order="C")
        phases = np.empty((len(counts), *counts.shape[2:]), np.int32)
        whole = np.array([self.shape[0], *self.shape[2:]], np.int64)
        first = np.array([frames[0], rows[0], columns[0]], np.int64)
        draw_phases(phases, first, whole, self._threshold, self._seed)
        raise_threshold(counts, phases, self._threshold)
        out[...] = counts[:, bins[0] :]


class FewerSpikes(Selectable):
    """Voxel grids in which every spike is kept with the same probability, each for itself, drawn by `seed`."""

    def __init__(self, grids: Grids, share: Fraction, seed: int) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share {share}: expected more than 0 and less than 1")
        self.shape, self.dtype = grids.shape, grids.dtype
        self._grids, self._seed = grids, np.uint64(seed)
        self._limit = np.uint64((share.numerator << 64) // share.denominator)

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        from pipeline.respike_kernel import THIN  # numba

        counts = np.array(self._grids[tuple(slice(*span) for span in spans)], order="C")
        first, whole = (np.array(v, np.int64) for v in ([start for start, _ in spans], self.shape))
        THIN[counts.dtype.name](counts, first, whole, self._limit, self._seed)
        out[...] = counts
