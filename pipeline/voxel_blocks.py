"""Voxel grids as the values of a store's array, counted from the packed spikes of its sequence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.stats import CountTally
from pipeline.storage.nodes import Nodes
from pipeline.storage.shards import Region
from pipeline.store import Sequence
from pipeline.virtual_voxels import packed_frames
from pipeline.voxels import LANE, Counts, Span, bin_edges, counts_type


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelBlocks:
    """The voxel grids (N, K, H, W) of one sequence, counted from its packed spikes.

    Attributes:
        key: "split/sequence".
        digests: those of its group, its spikes and its exposures.
    """

    store: Path
    key: str
    digests: Mapping[str, str]
    num_bins: int

    @staticmethod
    def of(sequence: Sequence, nodes: Nodes, num_bins: int) -> "VoxelBlocks":
        """The voxel grids of a sequence of the store with these nodes."""
        names = (sequence.key, f"{sequence.key}/spikes", f"{sequence.key}/exposure")
        digests = {name: nodes.digests[name] for name in names}
        return VoxelBlocks(store=nodes.store, key=sequence.key, digests=digests, num_bins=num_bins)

    def open(self, region: Region) -> "_VoxelBlock":
        """Counts of the exposures in `region`, and their histogram."""
        return _VoxelBlock(Sequence(Nodes(self.store, self.digests), self.key), self.num_bins)


class _VoxelBlock:
    """Counts of one exposure after the other: a tile is counted, and its values are counted, while it is in the cache.

    Tiles that do not begin and end with a lane of the counting are cut out of a band as wide as the frame.
    """

    def __init__(self, sequence: Sequence, num_bins: int) -> None:
        self._spikes = sequence.spikes
        self._spans = sequence.exposure.tolist()
        self._num_bins = num_bins
        self._width = sequence.spike_shape[1]
        longest = int(np.diff(sequence.exposure).max())
        self._type = np.dtype(counts_type(longest, num_bins))
        self._room = np.empty(0, self._type)
        self._tally = CountTally(-(-longest // num_bins))
        self._exposed: int | None = None
        self._band: tuple[int, Span] | None = None
        self._counts: Counts = self._room

    def chunk(self, part: Region) -> Counts:
        assert part[0].stop - part[0].start == 1
        frame, (rows, columns) = part[0].start, ((p.start, p.stop) for p in part[2:])
        if columns == (0, self._width) or (columns[0] % 8 == 0 and (columns[1] - columns[0]) % LANE == 0):
            return self._count(frame, rows, columns)[None]
        if self._band != (frame, rows):
            self._counts, self._band = self._count(frame, rows, (0, self._width)), (frame, rows)
        return self._counts[None, :, :, slice(*columns)]

    def summary(self) -> dict[str, Any]:
        return {"histogram": self._tally.histogram.bins.tolist()}

    def _count(self, frame: int, rows: Span, columns: Span) -> Counts:
        if self._exposed != frame:
            start, stop = self._spans[frame]
            self._exposed, self._frames = frame, packed_frames(self._spikes, start, stop)
            self._edges = bin_edges(stop - start, self._num_bins)
        shape = (self._num_bins, rows[1] - rows[0], columns[1] - columns[0])
        if self._room.shape != shape:
            self._room = np.empty(shape, self._type)
        counts = cast(Counts, self._room)
        self._frames.count(self._edges, rows, columns, counts)
        self._tally.add(counts)
        return counts
