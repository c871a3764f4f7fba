import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.ingest import ingest
from pipeline.storage import fetching, mapped
from pipeline.storage.fetching import local_folder, working_folder
from pipeline.storage.mirror import mirrors_of, shard_cache
from pipeline.storage.places import url_of
from pipeline.storage.remote import RemoteStore
from pipeline.store import open_store
from pipeline.verify import verify
from pipeline.voxelize import voxelize
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def whole(shared_raw, tmp_path_factory):
    """A store on the local disk; not to be changed."""
    store = tmp_path_factory.mktemp("whole") / "store"
    ingest(shared_raw.root, store, shared_raw.manifest)
    voxelize(store, num_bins=4)
    return store


@pytest.fixture
def place(s3, whole, tree_of):
    """The same store, copied to an object store as any tool would."""
    upload(tree_of(whole), f"{s3}/stores/a")
    return Path(f"{s3}/stores/a")


def upload(files, url):
    remote = RemoteStore.open(url)
    for key, data in files.items():
        remote.put(key, data)


def remote_of(place):
    return RemoteStore.open(url_of(place))


def values(store):
    return [store.sequence(*key).voxels("k4")[:].copy() for key in store.sequence_keys]


@pytest.fixture
def asked(monkeypatch):
    """The keys that are asked for, other than the root's."""
    keys, find = [], RemoteStore.find
    monkeypatch.setattr(RemoteStore, "find", lambda self, key: (keys.append(key), find(self, key))[1])
    return keys


def test_a_folder_is_read_and_built_in_where_it_is(tmp_path):
    assert local_folder(tmp_path / "store") == working_folder(tmp_path / "store") == tmp_path / "store"


def test_a_copied_store_reads_like_the_local_one(place, whole):
    far, near = open_store(place), open_store(whole)
    assert far.fingerprint == near.fingerprint and far.place == url_of(place)
    for one, other in zip(values(far), values(near), strict=True):
        np.testing.assert_array_equal(one, other)
    for key in near.sequence_keys:
        one, other = far.sequence(*key), near.sequence(*key)
        np.testing.assert_array_equal(one.spikes[:], other.spikes[:])
        np.testing.assert_array_equal(one.blurry[:], other.blurry[:])
        np.testing.assert_array_equal(one.exposure_ns, other.exposure_ns)
    assert far.normalization("k4") == near.normalization("k4")


def test_what_was_fetched_is_not_fetched_again(place, asked):
    open_store(place)
    first = len(asked)
    asked.clear()
    open_store(place)
    assert first > 20 and asked == ["zarr.json"]


def test_the_next_generation_fetches_what_changed(place, whole, tree_of, asked, tmp_path):
    before = values(open_store(place))
    shutil.copytree(whole, tmp_path / "next")
    voxelize(tmp_path / "next", num_bins=2)
    upload(tree_of(tmp_path / "next"), url_of(place))
    asked.clear()
    store = open_store(place)
    assert set(store.voxel_names) == {"k2", "k4"}
    assert {key.split("/")[-2] for key in asked if key != "zarr.json"} == {"k2"}
    fetched = shard_cache().fetched
    mapped.forget_maps(store.path)
    for one, other in zip(values(store), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert shard_cache().fetched == fetched


def test_a_reader_keeps_what_it_has_of_its_generation_and_is_told_of_the_rest(
    place, tree_of, tmp_path, raw, s3
):
    reader = open_store(place)
    spikes = reader.sequence("train", "a").spikes[:].copy()
    raw.root.joinpath("train/a/spikes.dat").write_bytes(
        bytes(raw.root.joinpath("train/a/spikes.dat").stat().st_size)
    )
    raw.root.joinpath("train/b/spikes.dat").write_bytes(
        bytes(raw.root.joinpath("train/b/spikes.dat").stat().st_size)
    )
    ingest(raw.root, tmp_path / "other", raw.manifest)
    upload(tree_of(tmp_path / "other"), url_of(place))
    np.testing.assert_array_equal(reader.sequence("train", "a").spikes[:], spikes)
    with pytest.raises(StoreError, match="is not the shard that was written here"):
        reader.sequence("train", "b").spikes[:]
    assert not open_store(place).sequence("train", "b").spikes[:].any()


def test_missing_and_changed_objects_are_found_at_opening(place, whole):
    remote = remote_of(place)
    for key, data in (
        ("train/a/spikes/zarr.json", None),
        ("train/a/spikes/zarr.json", b"{}"),
        ("train/b/voxels/k4/c/0/0/0/0", None),
        ("train/b/voxels/k4/c/0/0/0/0", b"short"),
    ):
        remote.delete([key]) if data is None else remote.put(key, data)
        shutil.rmtree(mirrors_of(place), ignore_errors=True)
        with pytest.raises(StoreError, match=key.rpartition("/c/")[0] or key):
            open_store(place)
        (damage,) = verify(place).damaged
        assert damage.path == key
        remote.put(key, whole / key)
    assert verify(place).ok


def test_a_deep_check_looks_at_the_objects_not_at_copies(place, whole):
    remote, key = remote_of(place), "train/b/voxels/k4/c/0/0/0/0"
    values(open_store(place))
    data = bytearray((whole / key).read_bytes())
    data[len(data) // 3] ^= 4
    remote.put(key, bytes(data))
    assert verify(place).ok
    (damage,) = verify(place, deep=True).damaged
    assert damage.path == key and "checksum" in damage.problem
    remote.put(key, whole / key)
    deep = verify(place, deep=True)
    assert deep.ok and deep.checked == verify(whole, deep=True).checked


def test_no_store_no_root_and_no_server_are_told_apart(s3, place, monkeypatch):
    with pytest.raises(StoreError, match="no store here") as caught:
        open_store(Path(f"{s3}/other"))
    assert f"-o {s3}/other" in caught.value.fix
    remote_of(place).put("zarr.json", b"{}")
    with pytest.raises(StoreError, match="not a Zarr v3 group"):
        open_store(place)


def test_with_the_server_gone_what_was_fetched_is_still_read(s3, whole, tree_of, monkeypatch):
    server = S3Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    server.make_bucket("bucket")
    upload(tree_of(whole), "s3://bucket/a")
    store = open_store(Path("s3://bucket/a"))
    before = store.sequence("train", "a").spikes[:].copy()
    server.stop()
    np.testing.assert_array_equal(store.sequence("train", "a").spikes[:], before)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"s3://bucket/a/train/b/spikes/c/0/0/0: .*error sending request"):
        store.sequence("train", "b").spikes[:]
    assert time.monotonic() - started < 3  # not once for every place where it might be
    with pytest.raises(StoreError, match=r"s3://bucket/a/zarr.json: .*error sending request"):
        open_store(Path("s3://bucket/a"))


def test_copies_that_made_room_are_unmapped(place, monkeypatch, whole):
    sizes = remote_of(place).sizes()
    monkeypatch.setenv("SPK_CACHE_GB", str(2 * max(sizes.values()) / 1e9))
    store = open_store(place)
    for key in store.sequence_keys:
        sequence = store.sequence(*key)
        for array in (sequence.spikes, sequence.blurry, sequence.sharp, sequence.voxels("k4")):
            array[:]
    held = [shard.file for shard in mapped._MAPS._shards.values() if "spk-cache" in shard.file.parts]
    held = [file for file in held if file.is_relative_to(shard_cache().folder)]
    assert held and all(file.exists() for file in held)


def test_a_cache_smaller_than_the_store_is_told(place, monkeypatch, caplog):
    open_store(place)
    assert "of which the local cache keeps" not in caplog.text
    monkeypatch.setenv("SPK_CACHE_GB", "1e-6")
    open_store(place)
    assert "of which the local cache keeps" in caplog.text and "SPK_CACHE" in caplog.text


def test_mirrors_of_earlier_generations_go_when_nobody_uses_them(place, whole, tree_of, tmp_path):
    reader = open_store(place)
    for bins in (2, 3):
        shutil.copytree(whole, tmp_path / str(bins))
        voxelize(tmp_path / str(bins), num_bins=bins)
        upload(tree_of(tmp_path / str(bins)), url_of(place))
        last = open_store(place).path
    old = time.time() - 2 * fetching.UNUSED_S
    mirrors = [folder for folder in mirrors_of(place).iterdir() if folder.is_dir()]
    assert len(mirrors) == 3
    for folder in mirrors:
        os.utime(folder, (old, old))
    open_store(place)
    assert {folder for folder in mirrors_of(place).iterdir() if folder.is_dir()} == {reader.path, last}


def test_does_not_build_among_other_things(s3):
    RemoteStore.open(s3).put("holiday.jpg", b"")
    with pytest.raises(UsageError, match="holds other things and is not a store"):
        working_folder(Path(s3))
    assert working_folder(Path(f"{s3}/beside")).is_dir()
