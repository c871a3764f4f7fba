import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.files import PARTIAL
from pipeline.storage import shard_cache
from pipeline.storage.shard_cache import ShardCache, cache_folder, limit_bytes

SIZE = 1000


class Source:
    """Where copies come from: files of SIZE bytes; counts how often it was asked for each."""

    def __init__(self, folder):
        self.cache = ShardCache(folder)
        self.fetched = []

    def open(self, name):
        def fetch(path):
            self.fetched.append(name)
            path.write_bytes(name.encode() * (SIZE // len(name)))

        return self.cache.open(name, SIZE, lambda file: os.fstat(file.fileno()).st_size == SIZE, fetch)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("SPK_CACHE_GB", str(3 * SIZE / 1e9))
    return Source(tmp_path)


def held(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_fetches_once_and_then_opens_the_copy(source):
    for _ in range(3):
        with source.open("aa01") as file:
            assert file.read() == b"aa01" * 250
    assert source.fetched == ["aa01"]


def test_the_least_recently_used_makes_room(source, tmp_path):
    for name in ("aa01", "aa02", "bb01"):
        source.open(name).close()
        time.sleep(0.01)
    source.open("aa01").close()  # so that aa02 is the one not used for longest
    time.sleep(0.01)
    source.open("cc01").close()
    assert held(tmp_path) == ["aa01", "bb01", "cc01"]
    source.open("aa02").close()
    assert source.fetched == ["aa01", "aa02", "bb01", "cc01", "aa02"]


def test_what_is_mapped_stays_whole_when_it_is_deleted(source, tmp_path):
    with source.open("aa01") as file:
        mapped = np.memmap(file, np.uint8, "r")
    for name in ("bb01", "cc01", "dd01"):
        source.open(name).close()
    assert "aa01" not in held(tmp_path)
    assert mapped.tobytes() == b"aa01" * 250


def test_a_copy_larger_than_the_cache_is_made_all_the_same(source, tmp_path, monkeypatch):
    source.open("aa01").close()
    monkeypatch.setenv("SPK_CACHE_GB", str(SIZE / 2 / 1e9))
    source.open("bb01").close()
    assert held(tmp_path) == ["bb01"]


def test_a_copy_cut_short_by_a_power_cut_is_fetched_again(source, tmp_path):
    source.open("aa01").close()
    (copy,) = tmp_path.rglob("aa01")
    copy.write_bytes(b"")
    with source.open("aa01") as file:
        assert file.read() == b"aa01" * 250
    assert source.fetched == ["aa01", "aa01"]


def test_an_error_while_fetching_leaves_nothing(source, tmp_path):
    def fetch(path):
        raise StoreError("the server is down")

    with pytest.raises(StoreError, match="the server is down"):
        source.cache.open("aa01", SIZE, lambda file: True, fetch)
    assert held(tmp_path) == []


def test_what_killed_processes_left_is_deleted_once_it_is_old(source, tmp_path):
    source.open("aa01").close()
    old, new = (tmp_path / "shards" / "aa" / f".{name}{PARTIAL}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    source.open("bb01").close()
    assert new.exists() and not old.exists()


def test_copies_that_others_delete_each_time_are_an_error(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path)
    with pytest.raises(StoreError, match="other processes delete it") as caught:
        cache.open("aa01", SIZE, lambda file: True, lambda path: None)
    assert "SPK_CACHE_GB" in caught.value.fix


def _use(folder, seed, fetches):
    source = Source(folder)
    for number in np.random.default_rng(seed).integers(0, 6, 150):
        name = f"{number:02d}xx"
        with source.open(name) as file:
            assert file.read() == name.encode() * 250
    fetches.put(len(source.fetched))


def test_processes_share_a_cache_that_is_too_small_for_them(source, tmp_path):
    context = multiprocessing.get_context("spawn")
    fetches = context.Queue()
    processes = [context.Process(target=_use, args=(tmp_path, seed, fetches)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert 6 < sum(fetches.get() for _ in processes) < 450
    assert len(held(tmp_path)) <= 3 + len(processes)


def test_a_process_looks_at_the_cache_only_now_and_then(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setenv("SPK_CACHE_GB", str(500 * SIZE / 1e9))
    monkeypatch.setattr(shard_cache, "limit_bytes", lambda *a: looks.append(a) or limit_bytes(*a))
    source = Source(tmp_path)
    for number in range(40):
        source.open(f"{number:02d}aa").close()
    assert 4 <= len(looks) <= 6  # ten copies each time: 0.02 of 500


def test_the_limit_is_a_hundred_gigabytes_or_most_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.delenv("SPK_CACHE_GB", raising=False)
    usage = shard_cache.shutil.disk_usage(tmp_path)
    for free, expected in ((10**12, 1e11), (10**10, 0.8 * (10**10 + 500))):
        monkeypatch.setattr(shard_cache.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert limit_bytes(tmp_path, held=500) == expected


@pytest.mark.parametrize("wrong", ["", "a lot", "0", "-1", "nan", "inf"])
def test_refuses_a_limit_that_is_none(tmp_path, monkeypatch, wrong):
    monkeypatch.setenv("SPK_CACHE_GB", wrong)
    with pytest.raises(UsageError, match="SPK_CACHE_GB="):
        limit_bytes(tmp_path, 0)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SPK_CACHE", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c"
    monkeypatch.delenv("SPK_CACHE")
    assert cache_folder() == (Path.home() / ".cache" / "spk").resolve()
