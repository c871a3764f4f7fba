"""RGB frames of any number that are looked at a few at a time, in order: only those few are in memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.frames import FramePlace, read_frames
from pipeline.storage.selections import Selectable, Span

U8 = npt.NDArray[np.uint8]


class FrameWindow(Selectable):
    """Frames (N, 3, H, W) wherever they are, indexed like an array.

    Each reading forgets the frames before the first one that it asked for, and keeps what it decoded from there on: a
    video is decoded once if every reading begins no earlier than the one before it. Others are allowed, and slower.
    Not for several threads at a time.
    """

    def __init__(self, places: Sequence[FramePlace], height: int, width: int) -> None:
        """`height`, `width`: of every frame."""
        self.shape = (len(places), 3, height, width)
        self.dtype = np.dtype(np.uint8)
        self._places = places
        self._kept: dict[int, U8] = {}
        self._upcoming: Iterator[U8] = iter(())
        self._next = -1

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        (start, stop), *inside = spans
        region = tuple(slice(*span) for span in inside)
        self._kept = {k: frame for k, frame in self._kept.items() if k >= start}
        for k, values in zip(range(start, stop), out, strict=True):
            values[...] = self._frame(k)[region]

    def _frame(self, k: int) -> U8:
        if k in self._kept:
            return self._kept[k]
        if k != self._next:
            self._upcoming, self._next = read_frames(self._places[k:]), k
            self._kept.clear()
        self._kept[k] = next(self._upcoming)
        self._next += 1
        return self._kept[k]
