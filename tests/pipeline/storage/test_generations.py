"""Rebuilding under the eyes of readers, and every crash between the commit and the end."""

import os
import shutil

import numpy as np
import pytest

from pipeline.ingest import ingest
from pipeline.repair import repair
from pipeline.storage import generations
from pipeline.storage.building import RECEIPTS
from pipeline.storage.nodes import ASIDE
from pipeline.storage.root import WORK, read_root
from pipeline.store import open_store
from pipeline.verify import verify
from pipeline.voxelize import voxelize


@pytest.fixture
def store(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    voxelize(tmp_path / "store", num_bins=8, name="v")
    return tmp_path / "store"


def counts(store):
    return [store.sequence(*key).voxels("v")[:].copy() for key in store.sequence_keys]


def aside(store):
    return sorted((store / ASIDE).glob("*"))


def test_a_reader_keeps_its_generation_and_its_files_go_when_it_does(store, raw):
    readers, expected = [], []
    for num_bins in (8, 4, 2, 8):
        voxelize(store, num_bins=num_bins, name="v", overwrite=True)
        readers.append(open_store(store))
        expected.append([raw.counts(f"{s}/{n}", num_bins) for s, n in readers[-1].sequence_keys])
    for reader, grids in zip(readers, expected, strict=True):
        for found, wanted in zip(counts(reader), grids, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert len(aside(store)) >= 6
    del reader, readers
    voxelize(store, num_bins=3, name="v", overwrite=True)
    assert not aside(store) and [path.name for path in (store / WORK).iterdir()] == ["zarr.json"]


def test_without_readers_nothing_is_kept(store):
    generation = read_root(store)["generation"]
    voxelize(store, num_bins=4, name="v")
    assert read_root(store)["generation"] == generation + 1
    assert sorted(path.name for path in (store / WORK).iterdir()) == ["zarr.json"]


def test_dropped_sequences_are_read_on_until_nobody_does(store, raw):
    reader = open_store(store)
    shutil.rmtree(raw.root / "train/b")
    ingest(raw.root, store, raw.manifest, overwrite=True)
    assert not (store / "train/b/spikes").exists()
    grids, blurry = counts(reader), np.array(reader.sequence("train", "b").blurry[:])
    assert [grid.shape[1] for grid in grids] == [8] * 3 and blurry.any()
    del reader
    voxelize(store, num_bins=8, name="v")
    assert not (store / "train/b").exists() and not aside(store)


@pytest.mark.parametrize("moves", range(5))
def test_a_crash_on_the_way_into_place_is_no_loss(store, raw, moves, monkeypatch, content_of, tmp_path):
    """The new generation is readable from where it lies, and the next writer completes it."""
    whole = shutil.copytree(store, tmp_path / "whole")
    voxelize(whole, num_bins=4, name="v")
    rename, left = os.rename, [moves]

    def crash(old, new):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generations.os, "rename", crash)
        voxelize(store, num_bins=4, name="v")
    reader = open_store(store)
    for (split, name), found in zip(reader.sequence_keys, counts(reader), strict=True):
        np.testing.assert_array_equal(found, raw.counts(f"{split}/{name}", 4))
    del reader
    assert voxelize(store, num_bins=4, name="v").written == 0
    assert content_of(store) == content_of(whole) and not aside(store)


def test_readers_between_two_looks_find_a_shard_that_moved(store):
    reader = open_store(store)
    grids = [reader.sequence(*key).voxels("v") for key in reader.sequence_keys]  # opened, not mapped
    voxelize(store, num_bins=4, name="v")
    assert all(grid[:].shape[1] == 8 for grid in grids)


def test_a_root_restored_from_an_older_copy_finds_its_nodes_again(store, raw):
    """Power went between the commit and the copy of its root; then the root was damaged."""
    copy = (store / WORK / "zarr.json").read_bytes()
    reader = open_store(store)  # so that what is replaced is kept
    voxelize(store, num_bins=4, name="v")
    (store / WORK / "zarr.json").write_bytes(copy)
    (store / "zarr.json").write_text("{")
    assert repair(store).left == ()
    assert (store / "zarr.json").read_bytes() == copy
    del reader
    voxelize(store, num_bins=3, name="other")
    opened = open_store(store)
    for (split, name), found in zip(opened.sequence_keys, counts(opened), strict=True):
        np.testing.assert_array_equal(found, raw.counts(f"{split}/{name}", 8))
        assert (store / split / name / "voxels/v/c").is_dir()
    assert verify(store, deep=True).ok and not aside(store)


def test_what_a_process_leaves_that_was_killed_after_its_commit_goes_with_the_next_run(store, tree_of):
    before = tree_of(store)
    (store / WORK / "lock").write_text("process 1 on another machine")
    (store / RECEIPTS).mkdir()
    assert voxelize(store, num_bins=8, name="v").written == 0
    assert tree_of(store) == before and not (store / RECEIPTS).exists()


def test_a_damaged_root_of_the_past_is_nobodys(store):
    (store / generations.HELD / "7").mkdir(parents=True)
    (store / generations.HELD / "7/zarr.json").write_text("{")
    voxelize(store, num_bins=4, name="v")
    assert [path.name for path in (store / WORK).iterdir()] == ["zarr.json"]
