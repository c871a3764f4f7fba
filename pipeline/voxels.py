"""Spike frames to spike counts per time bin: the voxel grid.

Frame j of the n frames of an exposure goes to bin floor(j * K / n), in integers. In seconds and floats the same rule
misplaces frames in a quarter to nine tenths of all windows.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

MAX_FRAMES_PER_BIN = 255
"""A bin of more frames could count past what uint8 holds."""

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def bin_edges(num_frames: int, num_bins: int) -> I64:
    """First frame of each bin, and the end: (K + 1,) int64, edge k = ceil(k * n / K).

    A bin is empty when there are fewer frames than bins.

    Raises:
        ValueError: no frames or no bins.
    """
    if num_frames < 1 or num_bins < 1:
        raise ValueError(f"cannot cut {num_frames} frames into {num_bins} bins")
    return -(-np.arange(num_bins + 1, dtype=np.int64) * num_frames // num_bins)


def frames_per_bin(num_frames: int, num_bins: int) -> I64:
    """How many spike frames each bin holds: (K,) int64, floor or ceil of n / K."""
    return np.diff(bin_edges(num_frames, num_bins))


def bin_spikes(spikes: U8, num_bins: int) -> U8:
    """Count the spikes of every pixel in each time bin, plainly.

    Args:
        spikes: (n, H, W) zeros and ones, the frames of one exposure and no others.

    Returns:
        (K, H, W) uint8 counts.

    Raises:
        ValueError: a bin would hold more than 255 frames.
    """
    edges = _checked_edges(len(spikes), num_bins)
    counts = [spikes[a:b].sum(axis=0, dtype=np.uint8) for a, b in itertools.pairwise(edges)]
    return np.stack(counts)


def bin_packed(packed: U8, num_bins: int, width: int) -> U8:
    """`bin_spikes` on packed rows, without unpacking them first.

    Args:
        packed: (n, H, ceil(W / 8)) uint8, LSB first: bit i of byte j is the pixel in column 8 * j + i.
        width: W, in pixels.

    Returns:
        (K, H, W) uint8 counts.
    """
    edges = _checked_edges(len(packed), num_bins)
    if packed.shape[2] != (width + 7) // 8:
        raise ValueError(f"rows of {packed.shape[2]} bytes do not hold {width} pixels")
    _, height, row_bytes = packed.shape
    lanes = np.zeros((num_bins, height, row_bytes), np.uint64)
    _kernel()(np.ascontiguousarray(packed), edges, lanes)
    return lanes.view(np.uint8)[:, :, :width]


def _checked_edges(num_frames: int, num_bins: int) -> I64:
    edges = bin_edges(num_frames, num_bins)
    most = int(np.diff(edges).max())
    if most > MAX_FRAMES_PER_BIN:
        raise ValueError(
            f"{num_frames} frames in {num_bins} bins put {most} in one bin, more than uint8 can count"
        )
    return edges


@functools.cache
def _kernel() -> Callable[[U8, I64, npt.NDArray[np.uint64]], None]:
    """The compiled counting loop; compiled once per machine, then loaded from numba's cache."""
    import numba  # 0.3 s of import that commands without voxels need not pay

    return numba.njit(nogil=True, cache=True)(_count)


SPREAD = np.uint64(0x0002040810204081)
"""Times a 7-bit number: a copy of it every 7 bits, so that its bit i lands on bit 8 * i."""
LOW_BITS = np.uint64(0x0001010101010101)
SEVEN_BITS = np.uint64(0x7F)
BIT_7, BYTE_7 = np.uint64(7), np.uint64(56)


def _count(packed: U8, edges: I64, lanes: npt.NDArray[np.uint64]) -> None:
    """Add each byte's 8 bits to 8 one-byte counters at once: (n, H, B) bytes to (K, H, B) words of 8 counts."""
    num_bins, height, row_bytes = lanes.shape
    for k in range(num_bins):
        for y in range(height):
            for j in range(edges[k], edges[k + 1]):
                for b in range(row_bytes):
                    byte = np.uint64(packed[j, y, b])
                    low = ((byte & SEVEN_BITS) * SPREAD) & LOW_BITS
                    lanes[k, y, b] += low | ((byte >> BIT_7) << BYTE_7)
