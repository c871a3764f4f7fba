import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.storage.mirror import (
    BUILDING,
    WORKING,
    is_there,
    list_again,
    mirror_of,
    mirrors_of,
    open_shard,
    place_of,
    ship,
    writer_of,
)
from pipeline.storage.remote import RemoteStore
from pipeline.storage.shards import table_layout, write_shard

LAYOUT = table_layout((4, 2), ("row", "column"))
POSITION = (0, 0)


@pytest.fixture
def place(s3):
    return f"{s3}/stores/a"


@pytest.fixture
def mirror(place):
    mirror = mirror_of(mirrors_of(place) / WORKING)
    assert mirror is not None
    return mirror


def put_shard(mirror, folder, values, name="train/a/exposure", below=""):
    """Upload the shard of a table that holds `values`; its receipt."""
    receipt = write_shard(folder, LAYOUT, POSITION, np.full((4, 2), values, np.int64))
    mirror.remote.put(f"{below}{name}/{receipt.key}", folder / receipt.key)
    return receipt


def read(mirror, receipt, name="train/a/exposure"):
    with open_shard(mirror.folder / name / receipt.key, receipt, LAYOUT.index_bytes) as file:
        return file.read()


def test_a_shard_is_fetched_when_it_is_touched_and_then_read_here(mirror, tmp_path):
    receipt = put_shard(mirror, tmp_path, 7)
    data = read(mirror, receipt)
    assert data == (tmp_path / receipt.key).read_bytes()
    mirror.remote.delete([f"train/a/exposure/{receipt.key}"])
    assert read(mirror, receipt) == data


def test_a_rebuilt_shard_is_never_taken_for_the_one_before(mirror, tmp_path):
    old = put_shard(mirror, tmp_path / "old", 7)
    before = read(mirror, old)
    new = put_shard(mirror, tmp_path / "new", 8)
    assert old.size == new.size
    assert read(mirror, new) == (tmp_path / "new" / new.key).read_bytes() != before
    assert read(mirror, old) == before  # of the generation that a reader has open


def test_a_shard_that_is_not_the_one_in_the_ledger_is_refused_and_not_kept(mirror, place, tmp_path):
    receipt = put_shard(mirror, tmp_path / "old", 7)
    put_shard(mirror, tmp_path / "new", 8)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"{place}/train/a/exposure/c/0/0: is not the shard that was written"
        ):
            read(mirror, receipt)
    mirror.remote.put(f"train/a/exposure/{receipt.key}", b"short")
    with pytest.raises(StoreError, match="is not the shard"):
        read(mirror, receipt)
    mirror.remote.delete([f"train/a/exposure/{receipt.key}"])
    with pytest.raises(StoreError, match="is missing"):
        read(mirror, receipt)


def test_where_a_shard_was_built_makes_no_difference_to_its_copy(mirror, tmp_path):
    receipt = put_shard(mirror, tmp_path, 7, below=f"{BUILDING}/")
    data = read(mirror, receipt, f"{BUILDING}/train/a/exposure")
    mirror.remote.delete([f"{BUILDING}/train/a/exposure/{receipt.key}"])
    assert read(mirror, receipt) == data


def test_what_is_there_is_known_from_a_listing_and_from_what_was_shipped(mirror, tmp_path):
    receipt = put_shard(mirror, tmp_path, 7)
    path = mirror.folder / "train/a/exposure" / receipt.key
    list_again(mirror)
    assert is_there(path, receipt.size) and not is_there(path, receipt.size + 1)
    assert mirror.size(path) == receipt.size and mirror.size(path.parent / "9") is None
    other = mirror.folder / f"{BUILDING}/train/b/exposure" / receipt.key
    other.parent.mkdir(parents=True)
    (tmp_path / receipt.key).rename(other)
    ship(other)
    assert is_there(other, receipt.size) and not other.exists()
    assert is_there(mirror.folder / "train/b/exposure" / receipt.key, receipt.size)  # on its way into place
    assert set(RemoteStore.open(mirror.url).sizes()) == {
        f"train/a/exposure/{receipt.key}",
        f"{BUILDING}/train/b/exposure/{receipt.key}",
    }


def test_a_fresh_copy_is_none_of_the_cache(mirror, tmp_path):
    receipt = put_shard(mirror, tmp_path, 7)
    path = mirror.folder / "train/a/exposure" / receipt.key
    read(mirror, receipt)
    mirror.remote.put(mirror.key(path), bytes(receipt.size))
    list_again(mirror)
    with mirror.fresh_copy(path, receipt.size) as copy:
        assert copy.read_bytes() == bytes(receipt.size)
    assert not copy.exists()


def test_local_stores_are_left_alone(mirror, tmp_path):
    path = tmp_path / "store" / "shard"
    assert mirror_of(path) is None and place_of(tmp_path / "store") == str(tmp_path / "store")
    assert not is_there(path, 4)
    path.parent.mkdir()
    path.write_bytes(b"here")
    ship(path)
    assert path.read_bytes() == b"here" and is_there(path, 4) and not is_there(path, 5)
    assert open_shard(path, None, 0).read() == b"here"
    with pytest.raises(FileNotFoundError):
        open_shard(path.with_name("other"), None, 0)


def test_places_and_servers_have_mirrors_of_their_own(s3, mirror, place, monkeypatch):
    assert place_of(mirror.folder) == place
    assert place_of(mirror.folder / "train/a") == f"{place}/train/a"
    assert mirrors_of(place) == mirror.folder.parent == mirrors_of(f"{place}/")
    others = {mirrors_of(s3), mirrors_of(f"{s3}/stores/b"), mirrors_of(f"{s3}/a")}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere")
    others.add(mirrors_of(place))
    assert len(others) == 4 and mirrors_of(place) != mirror.folder.parent
    assert len({writer_of(folder) for folder in others}) == 4


def test_a_marker_that_is_damaged_is_an_error(place):
    mirrors = mirrors_of(f"{place}-damaged")
    (mirrors / "remote.json").write_text("{}")
    with pytest.raises(StoreError, match="does not say what is mirrored here"):
        mirror_of(mirrors / "generation")
