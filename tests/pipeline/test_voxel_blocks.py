import numpy as np

from pipeline.ingest import ingest
from pipeline.store import open_store
from pipeline.voxel_blocks import VoxelBlocks


def test_counts_the_spikes_of_each_exposure(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    store = open_store(tmp_path / "store")
    sequence = store.sequence("train", "a")
    region = (slice(1, 3), slice(0, 8), *map(slice, sequence.spike_shape))
    counts, summary = VoxelBlocks.of(sequence, store.nodes, num_bins=8).block(region)
    plain = raw.counts("train/a", 8)[1:3]
    np.testing.assert_array_equal(counts, plain)
    assert summary == {"histogram": np.bincount(plain.ravel(), minlength=256).tolist()}
