"""Does a spike stream go on from frame to frame? What was lost or recorded twice shows where two frames meet.

Nearly no pixel fires in two frames running. Where a frame is missing, two frames meet that were one apart, and many
do; where a frame was recorded twice, all do. Both stand out against the rest of the recording, unless the camera is so
noisy, or the scene so bright or so dark, that pixels fire twice running as often as not, or hardly at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dat import SpikeStream

FRAMES_AT_ONCE = 64
MIN_SPIKES = 200
"""In a frame, for its share of pixels that fire again to mean anything."""
MIN_FRAMES = 12
"""In a recording, to know what is usual in it."""
RISE = 0.01
SPREADS = 12.0
CHANCE = 6.0
"""A missing frame raises the share of pixels that fire again by so much, by so many of its usual spreads, and by so
many standard deviations of a number of pixels that fire by chance."""
DIFFERENT = 0.02
"""Frames that differ usually in fewer of their spikes than this are allowed to be equal: nothing moves or fires."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a stream does not go on: between frame `frame - 1` and `frame`."""

    frame: int
    is_repeat: bool

    def __str__(self) -> str:
        if self.is_repeat:
            return f"spike frame {self.frame} is the same as the one before it: recorded twice"
        return f"before spike frame {self.frame} at least one is missing"


def find_breaks(stream: SpikeStream) -> tuple[Break, ...]:
    """Every place where frames of a stream were lost or recorded twice, as far as the spikes show it.

    One pass over the recording, with bounded memory. What cannot be seen: frames lost before the first or after the
    last one; losses in streams that fire at random, in saturated or very dim ones.
    """
    spikes, again, changed = _meetings(stream)
    if len(again) + 1 < MIN_FRAMES:
        return ()
    enough = np.minimum(spikes[:-1], spikes[1:]) >= MIN_SPIKES
    share = again / np.maximum(spikes[:-1], 1)
    differing = changed / np.maximum(spikes[:-1] + spikes[1:], 1)
    usual, spread = _usual(share[enough]) if enough.any() else (0.0, 0.0)
    repeats = enough & (changed == 0) if np.median(differing) > DIFFERENT else np.zeros_like(enough)
    chance = CHANCE * np.sqrt(usual * spikes[:-1] + 1) / np.maximum(spikes[:-1], 1)
    rises = enough & ~repeats & (share > usual + np.maximum(chance, max(RISE, SPREADS * spread)))
    lone = rises & ~_beside(rises)
    found = [Break(int(j) + 1, True) for j in np.flatnonzero(repeats)]
    found += [Break(int(j) + 1, False) for j in np.flatnonzero(lone)]
    return tuple(sorted(found, key=lambda one: one.frame))


def _meetings(stream: SpikeStream) -> tuple[npt.NDArray[np.int64], ...]:
    """Spikes of each frame (T,); pixels that fire in it and the next, and in one of the two only, (T - 1,) each."""
    parts = list(_by_block(stream))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _by_block(stream: SpikeStream) -> Iterator[tuple[npt.NDArray[np.int64], ...]]:
    for start in range(0, len(stream), FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, len(stream))
        words = _words(stream.packed(start, min(stop + 1, len(stream))))
        spikes = _ones(words)
        again = _ones(words[:-1] & words[1:])
        # A pixel that fires in one of two frames only is counted in one of them only.
        yield spikes[: stop - start], again, spikes[:-1] + spikes[1:] - 2 * again


def _words(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Packed frames (n, H, bytes) as (n, words): as many bits at a time as the processor counts."""
    flat = rows.reshape(len(rows), -1)
    if missing := -flat.shape[1] % 8:
        flat = np.pad(flat, [(0, 0), (0, missing)])
    return np.ascontiguousarray(flat).view(np.uint64)


def _ones(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return np.bitwise_count(words).sum(axis=1, dtype=np.int64)


def _usual(share: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median, and spread as a standard deviation that a few outliers do not change."""
    median = float(np.median(share))
    return median, 1.4826 * float(np.median(np.abs(share - median)))


def _beside(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a neighbour is set: the light, and not one meeting, has changed."""
    beside = np.zeros_like(flags)
    beside[1:] |= flags[:-1]
    beside[:-1] |= flags[1:]
    return beside
