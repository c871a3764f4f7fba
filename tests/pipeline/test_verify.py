import shutil

import pytest

from pipeline.errors import StoreError
from pipeline.ingest import ingest
from pipeline.verify import verify
from pipeline.voxelize import voxelize


@pytest.fixture(scope="module")
def whole(shared_raw, tmp_path_factory):
    store = tmp_path_factory.mktemp("verify") / "store"
    ingest(shared_raw.root, store, shared_raw.manifest)
    voxelize(store, num_bins=8, codec="lz4")
    return store


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def files_of(store):
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_store_is_fine_and_untouched(store, deep, times_of):
    before = times_of(store)
    found = verify(store, deep=deep)
    assert found.ok and found.checked == len(files_of(store))
    assert times_of(store) == before


@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated", "flipped"])
def test_every_damaged_file_is_named(store, how):
    for name in files_of(store):
        path = store / name
        data = path.read_bytes()
        if how == "deleted":
            path.unlink()
        else:
            changed = {"emptied": b"", "truncated": data[:-1], "flipped": bytes([data[0] ^ 4]) + data[1:]}[
                how
            ]
            path.write_bytes(changed)
        found = verify(store, deep=how == "flipped")
        assert [one.path for one in found.damaged] == [name] and not found.ok
        path.write_bytes(data)
    assert verify(store, deep=True).ok


def test_the_report_is_the_promised_object(store):
    (store / "train/a/spikes/c/0/0/0").unlink()
    told = verify(store).to_json()
    assert not told["ok"] and told["checked"] > 40
    assert told["damaged"] == [{"path": "train/a/spikes/c/0/0/0", "problem": "missing"}]


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="no store here"):
        verify(tmp_path)
