"""Voxel grids that are not stored: whoever reads them counts what it needs, by the rule of the stored ones.

Only the selected rows and columns are counted, of the spike frames of the selected bins, straight from the mapped bits.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.storage.mapped import MappedArray
from pipeline.storage.metadata import REPAIR
from pipeline.storage.selections import Selectable
from pipeline.voxels import (
    BIN_RULE,
    SHORTEST_ROW,
    Counts,
    PackedFrames,
    Span,
    bin_edges,
    counts_type,
)

VIRTUAL = "virtual"
"""The attribute of a group that stands for voxel grids, and the parameter of the stage that wrote it."""

_AT_ONCE = np.zeros((1, 1, 1, 1), np.int64)
"""Where the first and only chunk starts that is copied."""


class CountedVoxels(Selectable):
    """The voxel grids (N, K, H, W) of some exposures, indexed like an array, counted at every reading.

    Attributes:
        shape: of all grids.
        dtype: uint8, or uint16 where a bin may hold more than 255 frames.
    """

    def __init__(
        self,
        packed: Callable[[int, int], PackedFrames],
        exposure: npt.NDArray[np.int64],
        num_bins: int,
        spike_shape: tuple[int, int],
    ) -> None:
        """
        Args:
            packed: gives spike frames [start, stop).
            exposure: (N, 2) spans of spike frames, none of them empty.
            spike_shape: H and W.

        Raises:
            ValueError: an exposure is so long that a bin could hold more frames than uint16 can count.
        """
        self._packed = packed
        self._spans: list[Span] = [(start, stop) for start, stop in exposure.tolist()]
        self.shape: tuple[int, ...] = (len(exposure), num_bins, *spike_shape)
        self.dtype = np.dtype(counts_type(max(stop - start for start, stop in self._spans), num_bins))

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        if not out.size:
            return
        frames, bins, rows, columns = spans
        for (start, stop), counts in zip(self._spans[slice(*frames)], out, strict=True):
            edges = bin_edges(stop - start, self.shape[1])[bins[0] : bins[1] + 1]
            first, last = int(edges[0]), int(edges[-1])
            if first == last:  # fewer frames than bins
                counts[...] = 0
                continue
            packed = self._packed(start + first, start + last)
            _count(packed, edges - first, rows, columns, cast(Counts, counts))


class VirtualVoxels(CountedVoxels):
    """The voxel grids of one sequence of a store that are not stored, indexed like a `MappedArray`.

    Attributes:
        path: the group's directory.
        attributes: what its `zarr.json` carries.
    """

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        spikes: MappedArray,
        exposure: npt.NDArray[np.int64],
        spike_shape: tuple[int, int],
    ) -> None:
        """
        Args:
            spikes: packed, (T, H, ceil(W / 8)).
            exposure: (N, 2) spans of spike frames.
            spike_shape: H and W.

        Raises:
            StoreError: the attributes are not those of grids of these spikes, as this program counts them.
        """
        self.path = path
        self.attributes = dict(attributes)
        num_bins = self.attributes.get("num_bins")
        if type(num_bins) is not int or num_bins < 1 or self.attributes.get("rule") != BIN_RULE:
            raise StoreError(f"{path / 'zarr.json'}: not the rule by which spk counts spikes", REPAIR)
        if not all(0 <= start < stop <= len(spikes) for start, stop in exposure.tolist()):
            raise StoreError(
                f"{spikes.path}: {len(spikes)} spike frames, fewer than the exposures say", REPAIR
            )
        try:
            super().__init__(functools.partial(packed_frames, spikes), exposure, num_bins, spike_shape)
        except ValueError as error:
            raise StoreError(f"{path / 'zarr.json'}: {error}", REPAIR) from error
        found = self.attributes.get("shape"), self.attributes.get("dtype")
        if found != (list(self.shape), self.dtype.name):
            raise StoreError(
                f"{path / 'zarr.json'}: {found}, but its spikes give {self.dtype} {self.shape}", REPAIR
            )


def _count(
    packed: PackedFrames, edges: npt.NDArray[np.int64], rows: Span, columns: Span, out: Counts
) -> None:
    """Count into memory that may be laid out in any way."""
    if out.dtype != np.uint8 or out.strides[2] == 1:
        packed.count(edges, rows, columns, out)
        return
    from pipeline.storage.gather import gather  # numba: 0.3 s that few commands need to pay

    counts = np.empty(out.shape, np.uint8)
    packed.count(edges, rows, columns, counts)
    gather(counts.reshape(-1), _AT_ONCE, (1, *counts.shape), (0, 0, 0, 0), out[None])


def packed_frames(spikes: MappedArray, start: int, stop: int) -> PackedFrames:
    """Spike frames [start, stop), where they are in the map; decoded if they are compressed."""
    found = spikes.located(start, stop) if spikes.shape[2] >= SHORTEST_ROW else None
    if found is None:
        return PackedFrames.of([spikes[start:stop]])
    chunks, addresses = found
    return PackedFrames(tuple(chunks), addresses, chunks[0].strides[1])
