import subprocess
import sys
import threading

import numpy as np
import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.storage import remote
from pipeline.storage.remote import ConflictError, RemoteStore
from tests.s3_server import LISTED, CuttingProxy, S3Server


@pytest.fixture
def store(s3):
    return RemoteStore.open(f"{s3}/stores/a")


def test_bytes_and_files_go_there_and_back(store, tmp_path):
    store.put("x/zarr.json", b"{}")
    (tmp_path / "shard").write_bytes(b"spikes")
    store.put("x/c/0", tmp_path / "shard")
    assert store.get("x/zarr.json") == b"{}"
    store.fetch("x/c/0", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"spikes"
    assert store.sizes() == {"x/zarr.json": 2, "x/c/0": 6}
    assert store.sizes("x/c") == {"x/c/0": 6}
    store.copy("x/c/0", "y/c/0")
    store.delete(["x/c/0", "x/zarr.json", "never"])
    assert store.sizes() == {"y/c/0": 6}


def test_places_do_not_see_each_other(store, s3):
    other = RemoteStore.open(f"{s3}/stores/ab")
    other.put("k", b"1")
    assert store.sizes() == {} and store.find("k") is None
    assert RemoteStore.open(s3).sizes() == {"stores/ab/k": 1}


def test_large_objects_go_in_parts_and_come_in_a_stream(store, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MULTIPART_BYTES", 5 << 20)  # the smallest part that S3 takes
    monkeypatch.setattr(remote, "STREAM_BYTES", 1 << 20)
    data = np.random.default_rng(3).bytes((12 << 20) + 7)
    (tmp_path / "large").write_bytes(data)
    store.put("large", tmp_path / "large")
    tagged = store.find("large")
    assert tagged is not None and tagged.tag.strip('"').endswith(
        "-3"
    )  # what S3 calls an object of three parts
    store.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_listings_of_more_than_one_page(store):
    for number in range(2 * LISTED + 1):
        store.put(f"k/{number}", b"")
    assert len(store.sizes()) == 2 * LISTED + 1


def test_of_two_writers_only_one_replaces(store):
    first = store.replace("zarr.json", b"1", None)
    with pytest.raises(ConflictError, match=r"zarr.json: another process wrote it just now"):
        store.replace("zarr.json", b"2", None)
    second = store.replace("zarr.json", b"2", first)
    with pytest.raises(ConflictError):
        store.replace("zarr.json", b"3", first)
    found = store.find("zarr.json")
    assert found is not None and (found.data, found.tag) == (b"2", second)
    store.delete(["zarr.json"])
    with pytest.raises(ConflictError):
        store.replace("zarr.json", b"3", second)
    assert store.find("zarr.json") is None


def test_a_write_whose_answer_was_lost_is_known_by_its_bytes(store):
    tag = store.replace("zarr.json", b"mine", None)
    assert store.replace("zarr.json", b"mine", None) == tag  # as the client does when it has not heard
    assert store.replace("zarr.json", b"mine", '"older"') == tag


def test_what_is_missing_is_said_with_its_place(store, s3, tmp_path):
    with pytest.raises(StoreError, match=f"{s3}/stores/a/nothing is missing"):
        store.get("nothing")
    with pytest.raises(StoreError, match=f"{s3}/stores/a/nothing is missing"):
        store.fetch("nothing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="nothing"):
        store.copy("nothing", "to")


def test_a_bucket_that_is_not_there_is_said(s3):
    store = RemoteStore.open("s3://no-such-bucket/a")
    for ask in (
        store.sizes,
        lambda: store.find("k"),
        lambda: store.put("k", b""),
        lambda: store.replace("k", b"", None),
    ):
        with pytest.raises(StoreError, match="there is no bucket no-such-bucket") as caught:
            ask()
        assert caught.value.fix == "aws s3 mb s3://no-such-bucket"


def test_a_server_that_is_gone_is_an_error_of_one_line_and_leaves_nothing(s3, monkeypatch, tmp_path):
    server = S3Server()
    server.make_bucket("bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    store = RemoteStore.open("s3://bucket/a")
    store.put("k", b"1")
    server.stop()
    for ask in (
        store.sizes,
        lambda: store.find("k"),
        lambda: store.put("k", b""),
        lambda: store.fetch("k", tmp_path / "k"),
    ):
        with pytest.raises(StoreError, match=r"s3://bucket/a(/k)?: .*error sending request") as caught:
            ask()
        assert "\n" not in caught.value.problem and "AWS_ENDPOINT_URL" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_connection_cut_in_the_middle_gives_all_of_the_file_or_none(s3, s3_server, monkeypatch, tmp_path):
    data = np.random.default_rng(4).bytes(3 << 20)
    RemoteStore.open(s3).put("k", data)
    for cuts in (1, 1000):
        proxy = CuttingProxy(s3_server.port, after=1 << 20, cuts=cuts)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        folder = tmp_path / str(cuts)
        try:
            RemoteStore.open(s3).fetch("k", folder / "k")
        except StoreError:
            assert list(folder.iterdir()) == []
        else:
            assert (folder / "k").read_bytes() == data
        assert proxy.cuts < cuts
        proxy.close()


def test_two_threads_share_one_connection(store, tmp_path):
    for number in range(8):
        store.put(str(number), bytes([number]) * 1000)
    threads = [
        threading.Thread(target=store.fetch, args=(str(number), tmp_path / str(number)))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / str(number)).read_bytes()[0] for number in range(8)] == list(range(8))


def test_a_number_of_attempts_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
    with pytest.raises(UsageError, match="AWS_MAX_ATTEMPTS=many"):
        RemoteStore.open("s3://bucket/a")


def test_without_obstore_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match="object stores need the package obstore") as caught:
        RemoteStore.open("s3://bucket/a")
    assert caught.value.fix.startswith("pip install")


def test_obstore_is_loaded_only_when_a_place_needs_it():
    code = "import sys, pipeline.storage.remote; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
