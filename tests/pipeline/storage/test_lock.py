import pytest

from pipeline.errors import StoreError, TrainingError
from pipeline.storage.lock import has_stale_lock, hold_lock, is_locked, lock_store
from pipeline.storage.root import WORK


def test_one_at_a_time_and_nothing_is_left(tmp_path):
    with (
        lock_store(tmp_path),
        pytest.raises(StoreError, match="another process is writing"),
        lock_store(tmp_path),
    ):
        pass
    with lock_store(tmp_path):
        assert (tmp_path / WORK / "lock").read_text().startswith("process ")
    assert list(tmp_path.iterdir()) == []


def test_it_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), lock_store(tmp_path):
        raise RuntimeError
    with lock_store(tmp_path):
        pass


def test_links_are_refused_but_shards_are_not_looked_at(tmp_path):
    (tmp_path / "a/c").mkdir(parents=True)
    (tmp_path / "a/zarr.json").write_text("{}")
    (tmp_path / "a/c/0").symlink_to("nowhere")  # what reads it refuses it
    with lock_store(tmp_path):
        pass
    (tmp_path / "a/link").symlink_to("nowhere")
    with pytest.raises(StoreError, match="link: a link or special file"), lock_store(tmp_path):
        pass


def test_several_may_share_it_and_the_last_takes_it_away(tmp_path):
    lock = tmp_path / WORK / "lock"
    with lock_store(tmp_path, shared=True):
        with lock_store(tmp_path, shared=True):
            pass
        assert lock.exists()
        with pytest.raises(StoreError, match="another process is writing"), lock_store(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with (
        lock_store(tmp_path),
        pytest.raises(StoreError, match="another process is writing"),
        lock_store(tmp_path, shared=True),
    ):
        pass


def test_a_lock_whose_owner_is_gone_is_stale_and_one_that_is_held_is_not(tmp_path):
    assert not has_stale_lock(tmp_path)
    with lock_store(tmp_path):
        assert not has_stale_lock(tmp_path) and is_locked(tmp_path / WORK / "lock")
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "lock").write_text("process 1")
    assert has_stale_lock(tmp_path)
    with lock_store(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_any_folder_can_be_locked_with_an_error_of_its_own(tmp_path):
    path = tmp_path / "run" / ".lock"
    with hold_lock(path, tmp_path / "run", error=TrainingError):
        assert is_locked(path)
        with pytest.raises(TrainingError, match="run: another process is writing: process"):
            hold_lock(path, tmp_path / "run", error=TrainingError).__enter__()
    assert not path.parent.exists()
