import numpy as np
import pytest

from pipeline.ingest import ingest
from pipeline.store import open_store
from pipeline.voxel_jobs import train_histogram, voxel_job
from pipeline.voxelize import voxelize


@pytest.fixture
def store(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    return open_store(tmp_path / "store")


def test_a_job_depends_on_the_sequence_and_on_every_setting(store):
    a, b = store.sequences("train")
    keys = {
        voxel_job(store, sequence, num_bins, "v", codec).key
        for sequence in (a, b)
        for num_bins in (4, 8)
        for codec in ("none", "lz4")
    }
    keys |= {voxel_job(store, a, num_bins, "v", "none", virtual=True).key for num_bins in (4, 8)}
    assert len(keys) == 10
    assert voxel_job(store, a, 4, "v", "none").layout.shape == (3, 4, 18, 20)


def test_the_histogram_is_of_the_train_split(store, raw):
    voxelize(store.path, num_bins=4, name="v")
    opened = open_store(store.path)
    found = train_histogram(
        opened, "v", lambda array: opened.nodes.find(array.relative_to(store.path).as_posix()).attributes
    )
    counts = np.concatenate([raw.counts(key, 4).ravel() for key in ("train/a", "train/b")])
    np.testing.assert_array_equal(found.bins, np.bincount(counts, minlength=256))
