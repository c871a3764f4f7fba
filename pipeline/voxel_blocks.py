"""Voxel grids as the values of a store's array, counted from the packed spikes of its sequence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.stats import CountHistogram
from pipeline.storage.nodes import Nodes
from pipeline.storage.pieces import Region
from pipeline.store import Sequence
from pipeline.voxels import bin_packed


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelBlocks:
    """The voxel grids of one sequence, counted from its packed spikes.

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

    def block(self, region: Region) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Counts (n, K, H, W) of the exposures in `region`, and their histogram."""
        sequence = Sequence(Nodes(self.store, self.digests), self.key)
        width = sequence.spike_shape[1]
        spans = sequence.exposure[region[0]]
        counts = np.stack([bin_packed(sequence.spikes[a:b], self.num_bins, width) for a, b in spans])
        return counts, {"histogram": CountHistogram.of(counts).bins.tolist()}
