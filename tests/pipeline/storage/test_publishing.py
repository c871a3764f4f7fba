import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.ingest import ingest
from pipeline.repair import repair
from pipeline.storage import publishing
from pipeline.storage.mirror import BUILDING
from pipeline.storage.places import url_of
from pipeline.storage.publishing import LOCK
from pipeline.storage.remote import RemoteStore
from pipeline.store import open_store
from pipeline.verify import verify
from pipeline.voxelize import voxelize

CRASHES = 4
"""At how many of a rebuild's writes it is stopped; all of them at full length."""
WRITES = ("put", "replace", "copy", "delete")


@pytest.fixture
def place(s3):
    return Path(f"{s3}/stores/a")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Be on another machine: with a cache of its own."""
    return lambda name: monkeypatch.setenv("SPK_CACHE", str(tmp_path / name))


def objects_of(place):
    remote = RemoteStore.open(url_of(place))
    return {key: remote.get(key) for key in remote.sizes()}


def content(objects):
    """Objects without what tells of how many generations there were."""
    root = json.loads(objects["zarr.json"])
    for name in ("generation", "checksum"):
        del root["attributes"][name]
    return {key: data for key, data in objects.items() if not key.startswith(".spk/")} | {"zarr.json": root}


def grids(store):
    return {key: store.sequence(*key).voxels("v")[:].copy() for key in store.sequence_keys}


class Stopped(BaseException):
    """Not an error: the process is gone."""


@contextlib.contextmanager
def stopped_at(monkeypatch, number):
    """Lets `number` writes to the object store pass, and none after; yields the list of those that passed."""
    passed = []

    def guard(name, write):
        def guarded(self, *args):
            if name == "delete" and not args[0]:
                return None
            if len(passed) == number:
                raise Stopped
            passed.append(name)
            return write(self, *args)

        return guarded

    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(RemoteStore, name, guard(name, getattr(RemoteStore, name)))
        with contextlib.suppress(Stopped):
            yield passed


def test_the_objects_are_the_files_of_a_local_store(place, raw, tmp_path, tree_of):
    for store in (place, tmp_path / "store"):
        ingest(raw.root, store, raw.manifest)
        voxelize(store, num_bins=4, name="v", codec="lz4")
    assert objects_of(place) == tree_of(tmp_path / "store")
    voxelize(tmp_path / "store", num_bins=3, name="v")
    voxelize(place, num_bins=3, name="v")
    (raw.root / "test/c/blurry/000.png").unlink()
    for store in (place, tmp_path / "store"):
        ingest(raw.root, store, raw.manifest, quarantine=True, overwrite=True)
        voxelize(store, num_bins=3, name="v")
    assert objects_of(place) == tree_of(tmp_path / "store")


def test_a_finished_stage_writes_nothing(place, raw, monkeypatch):
    ingest(raw.root, place, raw.manifest)
    with stopped_at(monkeypatch, 0):
        assert ingest(raw.root, place, raw.manifest).written == 0
        ingest(raw.root, place, raw.manifest, dry_run=True)
        voxelize(place, num_bins=4, dry_run=True)
        assert verify(place, deep=True).ok


def crash_points(total, wanted):
    return sorted({int(point) for point in np.linspace(0, total - 1, wanted)})


@pytest.mark.parametrize("wanted", [CRASHES, pytest.param(10**6, marks=pytest.mark.slow)])
def test_killed_anywhere_in_a_rebuild_the_store_is_the_old_or_the_new_one_and_resumes(
    place, raw, tmp_path, tree_of, machine, monkeypatch, campaign, wanted
):
    for name in ("old", "new"):
        ingest(raw.root, tmp_path / name, raw.manifest)
        voxelize(tmp_path / name, num_bins=4, name="v")
    old = tree_of(tmp_path / "old")
    voxelize(tmp_path / "new", num_bins=3, name="v")
    wholes = {bins: grids(open_store(tmp_path / name)) for bins, name in ((4, "old"), (3, "new"))}
    remote = RemoteStore.open(url_of(place))

    def reset(number):
        remote.delete(list(remote.sizes()))
        for key, data in old.items():
            remote.put(key, data)
        machine(f"writer-{number}")

    reset("all")
    with stopped_at(monkeypatch, 10**6) as writes:
        voxelize(place, num_bins=3, name="v")
    points, seen = crash_points(len(writes), wanted), {3: 0, 4: 0}
    wrong = unlike = 0
    for point in points:
        reset(point)
        with stopped_at(monkeypatch, point):
            voxelize(place, num_bins=3, name="v")
        machine(f"reader-{point}")
        found = grids(open_store(place))
        bins = next(iter(found.values())).shape[1]
        seen[bins] += 1
        wrong += not all(np.array_equal(values, wholes[bins][key]) for key, values in found.items())
        machine(f"writer-{point}")
        voxelize(place, num_bins=3, name="v")
        resumed, expected = objects_of(place), tree_of(tmp_path / "new")
        unlike += content(resumed) != content(expected) or resumed.keys() != expected.keys()
    counts = {"n": len(points), "of": len(writes), "old": seen[4], "new": seen[3]}
    campaign("stores-in-s3-killed", **counts, read_wrongly=wrong, resumed_otherwise=unlike)
    assert wrong == unlike == 0 < min(seen.values())


def test_what_was_uploaded_is_not_uploaded_again(place, raw, monkeypatch):
    ingest(raw.root, place, raw.manifest)
    with stopped_at(monkeypatch, 3) as passed:  # the lock, and two shards
        voxelize(place, num_bins=4, workers=1)
    assert passed == ["replace", "put", "put"]
    assert (done := voxelize(place, num_bins=4)).written == 1
    assert done.skipped == 2 and verify(place, deep=True).ok


def test_what_went_away_meanwhile_is_built_again(place, raw, monkeypatch):
    ingest(raw.root, place, raw.manifest)
    with stopped_at(monkeypatch, 3):
        voxelize(place, num_bins=4, workers=1)
    remote = RemoteStore.open(url_of(place))
    remote.delete([next(key for key in remote.sizes() if key.startswith(f"{BUILDING}/"))])
    assert voxelize(place, num_bins=4).written == 2
    assert verify(place, deep=True).ok


def test_damaged_objects_are_repaired_to_the_byte(place, raw):
    ingest(raw.root, place, raw.manifest)
    voxelize(place, num_bins=4)
    whole = objects_of(place)
    remote = RemoteStore.open(url_of(place))
    flipped = bytearray(whole["test/c/blurry/c/0/0/0/0"])
    flipped[100] ^= 1
    for damage in range(2):
        remote.delete(["train/a/voxels/k4/c/0/0/0/0", "train/b/exposure/zarr.json"])
        remote.put("train/b/spikes/c/0/0/0", b"short")
        remote.put("test/c/blurry/c/0/0/0/0", bytes(flipped))
        assert len(verify(place, deep=True).damaged) == 4
        if damage:
            (raw.root / "test/c/blurry/000.png").write_bytes(
                (raw.root / "test/c/blurry/001.png").read_bytes()
            )
        done = repair(place)
        if damage:
            assert [one.path for one in done.left] == ["test/c/blurry/c/0/0/0/0"]
            assert objects_of(place) == whole | {"test/c/blurry/c/0/0/0/0": bytes(flipped)}
        else:
            assert not done.left and len(done.repaired) == 4
            assert objects_of(place) == whole


def test_a_second_writer_is_refused_and_told_who_the_first_is(place, raw, machine, monkeypatch):
    put, refused = RemoteStore.put, []

    def put_while_another_tries(self, *args):
        if not refused:
            machine("two")
            with pytest.raises(StoreError, match=r"another process is writing: process \d+ on ") as caught:
                ingest(raw.root, place, raw.manifest)
            refused.append(caught.value)
            machine("one")
        put(self, *args)

    monkeypatch.setattr(RemoteStore, "put", put_while_another_tries)
    machine("one")
    ingest(raw.root, place, raw.manifest, workers=1)
    (error,) = refused
    assert error.fix.endswith(f"aws s3 rm {url_of(place)}/{LOCK}")
    machine("two")
    assert ingest(raw.root, place, raw.manifest).written == 0
    assert LOCK not in objects_of(place)


def test_a_lock_left_by_a_killed_process_stops_others_but_not_its_successor(place, raw, machine, monkeypatch):
    machine("one")
    with stopped_at(monkeypatch, 2):
        ingest(raw.root, place, raw.manifest)
    assert LOCK in objects_of(place)
    machine("two")
    with pytest.raises(StoreError, match="another process is writing"):
        ingest(raw.root, place, raw.manifest)
    machine("one")
    ingest(raw.root, place, raw.manifest)
    assert verify(place, deep=True).ok and LOCK not in objects_of(place)


def test_of_two_writers_that_both_hold_a_lock_only_one_commits(place, raw, machine, monkeypatch):
    """Somebody took the lock away from a writer that was only slow."""
    ingest(raw.root, place, raw.manifest)
    commit = publishing._RemotePublisher.commit
    other = {}

    def slow_commit(self, root):
        if not other:
            other["is in"] = True
            RemoteStore.open(url_of(place)).delete([LOCK])
            machine("two")
            voxelize(place, num_bins=2, name="v")
            other["objects"] = objects_of(place)
            machine("one")
        commit(self, root)

    monkeypatch.setattr(publishing._RemotePublisher, "commit", slow_commit)
    machine("one")
    with pytest.raises(StoreError, match=r"changed it just now|not there as it was uploaded"):
        voxelize(place, num_bins=4, name="v")
    machine("three")
    assert {one.shape[1] for one in grids(open_store(place)).values()} == {2}
    assert verify(place, deep=True).ok
    voxelize(place, num_bins=4, name="v")
    assert {one.shape[1] for one in grids(open_store(place)).values()} == {4}


def test_a_build_upon_what_was_changed_is_refused(place, raw, machine, monkeypatch):
    machine("one")
    ingest(raw.root, place, raw.manifest)
    seen = open_store(publishing_folder(place), hold=False)
    machine("two")
    voxelize(place, num_bins=2)
    machine("one")
    with (
        pytest.raises(StoreError, match="another process changed it just now"),
        publishing.publisher_of(seen.path).locked(),
    ):
        raise AssertionError
    assert LOCK not in objects_of(place)


def publishing_folder(place):
    from pipeline.storage.fetching import working_folder

    return working_folder(place)


def test_no_shard_stays_on_the_disk(place, raw, tmp_path):
    ingest(raw.root, place, raw.manifest)
    files = [path.name for path in (tmp_path / "spk-cache" / "stores").rglob("*") if path.is_file()]
    assert set(files) == {"zarr.json", "remote.json", ".lock"}


def test_opens_in_zarr_python(place, raw):
    zarr = pytest.importorskip("zarr")
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    ingest(raw.root, place, raw.manifest)
    voxelize(place, num_bins=4)
    bucket, _, prefix = url_of(place).removeprefix("s3://").partition("/")
    far = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    group = zarr.open_group(ObjectStore(far, read_only=True), mode="r")
    np.testing.assert_array_equal(group["train/a/voxels/k4"][:], raw.counts("train/a", 4))
    assert group.attrs["name"] == "made" and sorted(group["train"].group_keys()) == ["a", "b"]
