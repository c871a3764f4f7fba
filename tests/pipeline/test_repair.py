import shutil

import pytest

from pipeline.alignment.correct import correct_alignment
from pipeline.errors import StoreError
from pipeline.ingest import ingest
from pipeline.repair import repair
from pipeline.storage.building import was_interrupted
from pipeline.store import open_store
from pipeline.verify import verify
from pipeline.voxelize import voxelize


@pytest.fixture(scope="module")
def whole(shared_raw, tmp_path_factory):
    store = tmp_path_factory.mktemp("repair") / "store"
    ingest(shared_raw.root, store, shared_raw.manifest, codec="zstd")
    voxelize(store, num_bins=8)
    return store


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def files_of(store):
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


def damage(store, number, name):
    path = store / name
    if number % 3 == 0:
        path.unlink()
    elif number % 3 == 1:
        path.write_bytes(path.read_bytes()[:-3])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_nothing_is_done_to_a_whole_store(store, times_of):
    done = repair(store)
    assert done.repaired == done.left == ()


def test_every_file_is_repaired_to_the_byte(store, whole, tree_of):
    for number, name in enumerate(files_of(store)):
        damage(store, number, name)
        done = repair(store)
        assert (done.repaired, done.left) == ((name,), ()), name
        assert tree_of(store) == tree_of(whole), name


@pytest.mark.parametrize("keep", [".spk/", "zarr.json"])
def test_all_of_it_at_once(store, whole, keep, tree_of):
    for number, name in enumerate(files_of(store)):
        if not name.startswith(keep):
            damage(store, number, name)
    assert repair(store).left == ()
    assert tree_of(store) == tree_of(whole)


def test_virtual_grids_are_repaired_to_the_byte(store, tree_of):
    """Alone, and together with the spikes that they are counted from."""
    voxelize(store, num_bins=8, virtual=True)
    before, groups = tree_of(store), [f"train/{name}/voxels/k8/zarr.json" for name in "ab"]
    assert set(groups) < before.keys()
    for number, name in enumerate([*groups, *groups[:1], "stats/k8/zarr.json"]):
        damage(store, number, name)
        damage(store, number + 1, "train/a/spikes/c/0/0/0")
        assert not verify(store).ok
        done = repair(store)
        assert name in done.repaired and done.left == (), name
        assert tree_of(store) == before, name
    shutil.rmtree(store / "train/a/voxels")
    assert repair(store).left == () and tree_of(store) == before


def test_without_the_recordings_the_rest_is_repaired(raw, tmp_path):
    ingest(raw.root, tmp_path / "store", raw.manifest)
    voxelize(tmp_path / "store", num_bins=8)
    raw.root.rename(tmp_path / "moved")
    for name in ("train/a/spikes/c/0/0/0", "train/b/voxels/k8/c/0/0/0/0", "train/a/zarr.json"):
        (tmp_path / "store" / name).unlink()
    done = repair(tmp_path / "store")
    assert done.repaired == ("train/b/voxels/k8/c/0/0/0/0",)
    assert [one.path for one in done.left] == ["train/a/zarr.json", "train/a/spikes/c/0/0/0"]
    assert all("it cannot be built again" in one.problem for one in done.left)
    again = repair(tmp_path / "store", tmp_path / "moved")
    assert len(again.repaired) == 2 and not again.left


def test_changed_recordings_are_not_taken_for_what_was_stored(raw, tmp_path, tree_of):
    store = tmp_path / "store"
    ingest(raw.root, store, raw.manifest)
    raw.add("train/a", seed=77)
    (store / "train/a/spikes/c/0/0/0").unlink()
    before = tree_of(store)
    done = repair(store)
    assert not done.repaired and "has changed since" in done.left[0].problem
    assert tree_of(store) == before


def test_corrected_exposures_are_rebuilt_as_corrected(raw, tmp_path, tree_of):
    store = tmp_path / "store"
    raw.add("train/a", seed=3, spans=((4, 12), (20, 41), (50, 60)))
    ingest(raw.root, store, raw.manifest)
    correct_alignment(open_store(store, hold=False), {"train/a": -2})
    whole = tree_of(store)
    shutil.rmtree(store / "train/a/exposure")
    assert repair(store).left == () and tree_of(store) == whole


def test_a_root_and_a_copy_that_are_both_damaged_are_refused(store):
    (store / "zarr.json").write_text("{")
    (store / ".spk/zarr.json").write_text("{")
    with pytest.raises(StoreError):
        repair(store)


def test_an_interrupted_ingest_has_to_end_first(store, shared_raw):
    (store / ".spk/receipts/ingest").mkdir(parents=True)
    assert was_interrupted(store, "ingest")
    (store / "train/a/spikes/c/0/0/0").unlink()
    with pytest.raises(StoreError, match="was interrupted"):
        repair(store)
