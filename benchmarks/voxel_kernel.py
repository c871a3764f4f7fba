"""Counting spikes into 32 bins: ours against an event list, against plain numpy, against reading and writing alone.

python benchmarks/voxel_kernel.py

The floor reads every input byte once (`packed.copy()`) and writes every output byte once (`counts.fill(1)`). The event
list of a second of a large sensor would take 10 GB and is left out there.
"""

import itertools
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rounds import medians, table
from pipeline.dat import pack_rows, unpack_rows
from pipeline.voxels import bin_edges, bin_packed, bin_spikes, count_window

NUM_BINS = 32
RATE = 0.15
RATE_HZ = 20_000.0
SIZES = ((88, 360, 640), (202, 250, 400), (667, 1000, 1000))
MOST_EVENTS = 100_000_000
QUICK = {"ours": 20, "read and write only": 20}
"""Variants that are called so often in a turn: warm, as the slow ones are by themselves."""


def event_list(packed: np.ndarray, width: int) -> np.ndarray:
    """The voxelizer of earlier systems: a list of events, added up one by one into float32."""
    time, row, column = np.nonzero(unpack_rows(packed, width))
    counts = np.zeros((NUM_BINS, packed.shape[1], width), np.float32)
    np.add.at(counts, (time * NUM_BINS // len(packed), row, column), 1.0)
    return counts


def events_in_seconds(packed: np.ndarray, width: int) -> np.ndarray:
    """The same with times in seconds, as they kept them: a few frames in the wrong bin, and more to compute."""
    frame, row, column = np.nonzero(unpack_rows(packed, width))
    time, end = frame / RATE_HZ, len(packed) / RATE_HZ
    inside = (time >= 0) & (time < end)
    bins = np.clip((time[inside] / end * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    counts = np.zeros((NUM_BINS, packed.shape[1], width), np.float32)
    np.add.at(counts, (bins, row[inside], column[inside]), 1.0)
    return counts


def unpack_per_bin(packed: np.ndarray, width: int) -> np.ndarray:
    """Plain numpy: unpack and add up one bin after the other."""
    spans = itertools.pairwise(bin_edges(len(packed), NUM_BINS))
    return np.concatenate([bin_spikes(unpack_rows(packed[a:b], width), 1) for a, b in spans])


def ours(packed: np.ndarray, counts: np.ndarray) -> None:
    """Into counts that are there already, as the floor does."""
    count_window(packed, bin_edges(len(packed), NUM_BINS), (0, counts.shape[1]), (0, counts.shape[2]), counts)


def read_and_write(packed: np.ndarray, counts: np.ndarray) -> None:
    """The floor: every input byte read once, every output byte written once."""
    packed.copy()
    counts.fill(1)


def extra_memory(packed: np.ndarray, counts: np.ndarray) -> int:
    """Most bytes that counting allocates besides packed frames and counts; numba's allocations are numpy's."""
    tracemalloc.start()
    ours(packed, counts)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def repeated(variant: Callable[[], object], times: int) -> Callable[[], None]:
    """A turn of several calls, so that the first, whose memory the variant before has driven out, does not decide."""

    def turn() -> None:
        for _ in range(times):
            variant()

    return turn


def random_spikes(num_frames: int, height: int, width: int) -> np.ndarray:
    """Packed frames with `RATE` of their pixels set."""
    rng = np.random.default_rng(0)
    frames = (rng.random((height, width), np.float32) < RATE for _ in range(num_frames))
    return np.concatenate([pack_rows(frame[None].astype(np.uint8)) for frame in frames])


def main() -> None:
    for num_frames, height, width in SIZES:
        packed = random_spikes(num_frames, height, width)
        counts = bin_packed(packed, NUM_BINS, width)
        assert np.array_equal(counts, unpack_per_bin(packed, width))
        variants = {
            "ours": lambda p=packed, c=counts: ours(p, c),
            "read and write only": lambda p=packed, c=counts: read_and_write(p, c),
            "numpy, unpack per bin": lambda p=packed, w=width: unpack_per_bin(p, w),
        }
        if num_frames * height * width < MOST_EVENTS:
            assert np.array_equal(counts, event_list(packed, width))
            assert counts.sum(dtype=np.int64) == events_in_seconds(packed, width).sum(dtype=np.float64)
            variants["event list and np.add.at"] = lambda p=packed, w=width: event_list(p, w)
            variants["the same, times in seconds"] = lambda p=packed, w=width: events_in_seconds(p, w)
        turns = {name: repeated(variant, QUICK.get(name, 1)) for name, variant in variants.items()}
        seconds = {name: value / QUICK.get(name, 1) for name, value in medians(turns).items()}
        title = f"Voxel grid of {num_frames} frames of {height}x{width}, {NUM_BINS} bins"
        sys.stdout.write(table(title, seconds, "ours"))
        floor = seconds["read and write only"] / seconds["ours"]
        memory = extra_memory(packed, counts) / 1e6
        sys.stdout.write(f"\n{floor:.2f} of the floor; {memory:.2f} MB beside input and output\n\n")


if __name__ == "__main__":
    main()
