"""What a sequence's voxel grids become in the store, and the histogram that its statistics come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.fingerprints import fingerprint_of
from pipeline.stats import CountHistogram
from pipeline.storage.building import ArrayJob
from pipeline.storage.root import INGEST
from pipeline.storage.shards import Codec, frames_layout
from pipeline.store import Sequence, Store
from pipeline.virtual_voxels import VIRTUAL
from pipeline.voxel_blocks import VoxelBlocks
from pipeline.voxels import BIN_RULE, counts_type, frames_per_bin

TRAIN = "train"


def voxel_job(
    store: Store, sequence: Sequence, num_bins: int, name: str, codec: Codec, *, virtual: bool = False
) -> ArrayJob:
    """Plan the voxel grids of one sequence: uint8 counts, or uint16 where a bin may hold more than 255 frames.

    Args:
        virtual: nothing but what `VirtualVoxels` needs is stored.

    Raises:
        UsageError: bins that would hold more frames than can be counted.
    """
    lengths = np.unique(np.diff(sequence.exposure))
    try:
        dtype = counts_type(int(lengths.max()), num_bins)
    except ValueError as error:
        raise UsageError(f"{sequence.path}: {error}", "use more --bins") from error
    shape = (sequence.num_frames, num_bins, *sequence.spike_shape)
    attributes = {
        "num_bins": num_bins,
        "rule": BIN_RULE,
        "frames_per_bin": {str(n): frames_per_bin(int(n), num_bins).tolist() for n in lengths},
    }
    if virtual:
        attributes |= {VIRTUAL: True, "dtype": dtype, "shape": list(shape)}
    return ArrayJob(
        array=sequence.path / "voxels" / name,
        layout=frames_layout(
            shape, ("frame", f"{name}_bin", "spike_row", "spike_column"), codec=codec, dtype=dtype
        ),
        source=VoxelBlocks.of(sequence, store.nodes, num_bins),
        inputs=fingerprint_of(store.attributes["stages"][INGEST]["sequences"][sequence.key]),
        attributes=attributes,
        summarise=_sum_histograms,
        stored=not virtual,
    )


def train_histogram(store: Store, name: str, attributes: Callable[[Path], dict[str, Any]]) -> CountHistogram:
    """The exact histogram of the train split's counts; empty if there is no such split.

    Args:
        attributes: reads those of voxel grids, which may be in the store or still being built.
    """
    total = CountHistogram.empty()
    for sequence in store.sequences(TRAIN):
        histogram = attributes(sequence.path / "voxels" / name)["histogram"]
        total += CountHistogram(np.array(histogram, np.int64))
    return total


def _sum_histograms(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    total = np.sum([summary["histogram"] for summary in summaries], axis=0, dtype=np.int64)
    return {"histogram": total.tolist()}
