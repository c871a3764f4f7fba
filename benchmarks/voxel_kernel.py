"""Counting spikes into 32 bins: ours against an event list, against plain numpy, against reading and writing alone.

python benchmarks/voxel_kernel.py
"""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rounds import medians, table
from pipeline.dat import pack_rows, unpack_rows
from pipeline.voxels import bin_edges, bin_packed, bin_spikes

NUM_BINS = 32
RATE = 0.15
SIZES = ((88, 360, 640), (202, 250, 400))


def event_list(packed: np.ndarray, width: int) -> np.ndarray:
    """The voxelizer of earlier systems: a list of events, added up one by one into float32."""
    time, row, column = np.nonzero(unpack_rows(packed, width))
    counts = np.zeros((NUM_BINS, packed.shape[1], width), np.float32)
    np.add.at(counts, (time * NUM_BINS // len(packed), row, column), 1.0)
    return counts


def unpack_per_bin(packed: np.ndarray, width: int) -> np.ndarray:
    """Plain numpy: unpack and add up one bin after the other."""
    spans = itertools.pairwise(bin_edges(len(packed), NUM_BINS))
    return np.concatenate([bin_spikes(unpack_rows(packed[a:b], width), 1) for a, b in spans])


def read_and_write(packed: np.ndarray, counts: np.ndarray) -> None:
    """The floor: every input byte read once, every output byte written once."""
    packed.copy()
    counts.fill(1)


def main() -> None:
    for num_frames, height, width in SIZES:
        spikes = np.random.default_rng(0).random((num_frames, height, width)) < RATE
        packed = pack_rows(spikes)
        counts = bin_packed(packed, NUM_BINS, width)
        assert np.array_equal(counts, unpack_per_bin(packed, width))
        assert np.array_equal(counts, event_list(packed, width))
        variants = {
            "ours": lambda p=packed, w=width: bin_packed(p, NUM_BINS, w),
            "read and write only": lambda p=packed, c=counts: read_and_write(p, c),
            "numpy, unpack per bin": lambda p=packed, w=width: unpack_per_bin(p, w),
            "event list and np.add.at": lambda p=packed, w=width: event_list(p, w),
        }
        title = f"Voxel grid of {num_frames} frames of {height}x{width}, {NUM_BINS} bins"
        sys.stdout.write(table(title, medians(variants), "ours") + "\n")


if __name__ == "__main__":
    main()
