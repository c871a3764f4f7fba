"""Spike frames to spike counts per time bin: the voxel grid.

Frame j of the n frames of an exposure goes to bin floor(j * K / n), in integers. In seconds and floats the same rule
misplaces frames in a quarter to nine tenths of all windows.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

BIN_RULE = (
    "frame j of the n frames of an exposure is counted in bin floor(j * K / n); no other frames are counted"
)
MAX_FRAMES_PER_BIN = 255
"""A bin of more frames could count past what uint8 holds, and is counted in uint16."""
MOST_FRAMES_PER_BIN = 65535

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Span = tuple[int, int]


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


def counts_type(num_frames: int, num_bins: int) -> Literal["uint8", "uint16"]:
    """The type that holds every count that `num_frames` frames in `num_bins` bins can give.

    Raises:
        ValueError: neither does.
    """
    most = -(-num_frames // num_bins)
    if most > MOST_FRAMES_PER_BIN:
        raise ValueError(
            f"{num_frames} frames in {num_bins} bins put {most} in one bin, more than uint16 can count"
        )
    return "uint8" if most <= MAX_FRAMES_PER_BIN else "uint16"


def bin_spikes(spikes: U8, num_bins: int) -> Counts:
    """Count the spikes of every pixel in each time bin, plainly.

    Args:
        spikes: (n, H, W) zeros and ones, the frames of one exposure and no others.

    Returns:
        (K, H, W) counts, uint8; uint16 where a bin holds more than 255 frames.

    Raises:
        ValueError: a bin would hold more frames than uint16 can count.
    """
    kind = counts_type(len(spikes), num_bins)
    edges = bin_edges(len(spikes), num_bins)
    return np.stack([spikes[a:b].sum(axis=0, dtype=kind) for a, b in itertools.pairwise(edges)])


def bin_packed(packed: U8, num_bins: int, width: int) -> Counts:
    """`bin_spikes` on packed rows, without unpacking them.

    Args:
        packed: (n, H, ceil(W / 8)) uint8, LSB first: bit i of byte j is the pixel in column 8 * j + i.
        width: W, in pixels.

    Returns:
        (K, H, W) counts, uint8; uint16 where a bin holds more than 255 frames.
    """
    num_frames, height, row_bytes = packed.shape
    if row_bytes != (width + 7) // 8:
        raise ValueError(f"rows of {row_bytes} bytes do not hold {width} pixels")
    counts = cast(Counts, np.empty((num_bins, height, width), counts_type(num_frames, num_bins)))
    count_window(packed, bin_edges(num_frames, num_bins), (0, height), (0, width), counts)
    return counts


def count_window(packed: U8, edges: I64, rows: Span, columns: Span, out: Counts) -> None:
    """`PackedFrames.count` of an array of packed frames (n, H, ceil(W / 8)), which may be a strided view."""
    PackedFrames.of([packed]).count(edges, rows, columns, out)


TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
LANE = 128
"""Pixels that are counted at a time."""
SHORTEST_ROW = 8
"""Bytes: shorter rows are filled up before they are counted."""


@dataclass(frozen=True, eq=False, slots=True)
class PackedFrames:
    """Packed frames that follow one another in time, wherever each lies in memory; counted where they lie.

    Attributes:
        parts: (n_i, H, B) uint8 arrays with first pixels in lowest bits; kept alive, and not copied.
        addresses: (n,) of the first byte of each frame's first row.
        row_stride: bytes from one row to the next.
    """

    parts: tuple[U8, ...]
    addresses: I64
    row_stride: int

    @staticmethod
    def of(parts: Sequence[U8]) -> "PackedFrames":
        """Frames that are in one or more arrays, such as the mapped chunks of a store.

        Raises:
            ValueError: they are not uint8 arrays of three axes, or their frames differ in shape.
        """
        parts = tuple(parts)
        if not parts or any(part.dtype != np.uint8 or part.ndim != 3 for part in parts):
            raise ValueError("packed frames are uint8 (n, H, bytes of a row)")
        if len({part.shape[1:] for part in parts}) > 1 or not all(part.size for part in parts):
            raise ValueError(f"frames of one shape are needed, not of {[part.shape for part in parts]}")
        missing = SHORTEST_ROW - parts[0].shape[2]
        if missing > 0:
            parts = tuple(np.pad(part, [(0, 0), (0, 0), (0, missing)]) for part in parts)
        if any(part.strides[2] != 1 or part.strides[1] != parts[0].strides[1] for part in parts):
            parts = tuple(np.ascontiguousarray(part) for part in parts)
        starts = [part.ctypes.data + np.arange(len(part)) * part.strides[0] for part in parts]
        return PackedFrames(parts, np.concatenate(starts), parts[0].strides[1])

    def __len__(self) -> int:
        return len(self.addresses)

    def count(self, edges: I64, rows: Span, columns: Span, out: Counts) -> None:
        """Count the spikes of a window of pixels in each time bin.

        Args:
            edges: (K + 1,) frame numbers: bin k is frames [edges[k], edges[k + 1]); `bin_edges` for an exposure that
                is all of these frames. Bins may be empty.
            rows, columns: of the window, [first, last). Windows at least 128 wide that begin and end at whole bytes
                are counted fastest.
            out: (K, rows, columns) counts, overwritten. uint8 takes bins of up to 255 frames, uint16 of up to 65,535.

        Raises:
            ValueError: window or bins lie outside the frames, `out` has another shape, or its type is too narrow.
        """
        self._require(rows, columns, (len(edges) - 1, rows[1] - rows[0], columns[1] - columns[0]), out)
        edges = np.array(edges, np.int64)
        if out.dtype != np.uint8:
            self._count_wide(edges, rows, columns, out)
        elif out.strides[2] == 1 and (out.shape[2] >= LANE or out.flags.c_contiguous):
            self._count_bytes(edges, rows, columns, out)
        else:
            counts = np.empty(out.shape, np.uint8)
            self._count_bytes(edges, rows, columns, counts)
            out[...] = counts

    def _require(self, rows: Span, columns: Span, expected: tuple[int, int, int], out: Counts) -> None:
        _, height, row_bytes = self.parts[0].shape
        if not (0 <= rows[0] < rows[1] <= height and 0 <= columns[0] < columns[1] <= 8 * row_bytes):
            raise ValueError(
                f"rows {rows} and columns {columns} do not lie in frames of {height}x{8 * row_bytes}"
            )
        if expected[0] < 1 or out.shape != expected or out.dtype not in TYPES or not out.flags.writeable:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected writable counts {expected}")

    def _count_bytes(self, edges: I64, rows: Span, columns: Span, out: U8) -> None:
        # Imports numba: 0.3 s that few commands need to pay.
        from pipeline.count_kernel import LANE, count_lanes, lane_table

        pixels = 8 * self.parts[0].shape[2]
        if columns == (0, pixels) and 8 * self.row_stride == out.strides[1] == pixels:
            # Whole rows that lie end to end are one long row, without a rest at the end of each.
            window = (0, 1, rows[0] * pixels, rows[1] * pixels, 0, rows[1] * self.row_stride, 0)
        else:
            window = (*rows, *columns, self.row_stride, pixels // 8, out.strides[1])
        lanes, whole = lane_table(*window)
        place = out.ctypes.data
        end = place + out.nbytes
        room = np.empty(2 * LANE, np.uint8)
        least, most = count_lanes(
            self.addresses, edges, lanes, whole, out.shape[2], place, out.strides[0], end, room
        )
        if least < 0:
            raise ValueError(f"edges {edges.tolist()} do not cut {len(self)} frames into bins")
        if most > MAX_FRAMES_PER_BIN:
            raise ValueError(f"{most} frames in one bin are more than uint8 can count")
        if least == 0:
            out[edges[1:] == edges[:-1]] = 0

    def _count_wide(self, edges: I64, rows: Span, columns: Span, out: Counts) -> None:
        """Counts of more than 255 frames, as the sum of the bytes' counts."""
        if np.diff(edges).max() > MOST_FRAMES_PER_BIN:
            raise ValueError(f"{np.diff(edges).max()} frames in one bin are more than uint16 can count")
        part = np.empty((1, *out.shape[1:]), np.uint8)
        for (first, last), counts in zip(itertools.pairwise(edges.tolist()), out, strict=True):
            counts[...] = 0
            for start in range(first, max(last, first + 1), MAX_FRAMES_PER_BIN):
                # Edges that go back give a `stop` before `start`, which is refused.
                stop = min(start + MAX_FRAMES_PER_BIN, last)
                self._count_bytes(np.array([start, stop]), rows, columns, part)
                counts += part[0]
