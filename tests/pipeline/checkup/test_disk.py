import fcntl
import os
from pathlib import Path

import pytest

from pipeline.checkup import disk
from pipeline.mounts import Mount

GB = 10**9


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("ext4", "ok"),
        ("fuseblk", "ok"),
        ("nfs4", "note"),
        ("fuse.sshfs", "note"),
        ("lustre", "note"),
        ("tmpfs", "note"),
    ],
)
def test_file_systems_over_a_network_and_in_memory_are_worth_knowing(kind: str, status: str) -> None:
    (found,) = disk.check_file_system(Path("/data"), Mount(Path("/data"), kind, "server:/x"))
    assert (found.status, bool(found.fix)) == (status, status == "note")
    assert found.found.startswith(f"server:/x ({kind} at /data)")


def test_an_unknown_file_system_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "mount_of", lambda path: None)
    assert next(disk.check_file_system(tmp_path)).status == "ok"


@pytest.mark.parametrize(
    ("free", "files", "status"),
    [
        (GB // 2, 10**6, "problem"),
        (100 * GB, 10, "problem"),
        (5 * GB, 10**6, "note"),
        (100 * GB, 10**6, "ok"),
    ],
)
def test_judges_what_is_free(free: int, files: int, status: str, tmp_path: Path) -> None:
    (found,) = disk.check_space(tmp_path, free, files)
    assert found.status == status


def test_a_disk_that_keeps_its_promises(tmp_path: Path) -> None:
    (found,) = disk.check_promises(tmp_path)
    assert (found.status, found.found) == ("ok", "rename and fsync, flock, mmap work")
    assert not any(tmp_path.iterdir())


def test_locks_that_do_not_lock_and_a_failing_fsync_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    monkeypatch.setattr(os, "fsync", fail)
    found = list(disk.check_promises(tmp_path))
    assert [one.status for one in found] == ["problem", "problem", "ok"]
    assert "Input/output error" in found[0].found and "second writer" in found[1].found
    assert not any(tmp_path.iterdir())


def test_a_clock_of_the_disk_that_differs_is_worth_knowing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = disk.time.time()
    monkeypatch.setattr(disk.time, "time", lambda: now + 60)
    assert "behind" in next(disk.check_promises(tmp_path)).found


def test_a_folder_that_cannot_be_written_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [one.status for one in disk.check_promises(tmp_path)] == ["note"]
    assert [one.status for one in disk.check_speed(tmp_path)] == ["note"]


@pytest.mark.parametrize(
    ("write", "read", "status"), [(1e9, 1e9, "ok"), (1e7, 1e9, "note"), (1e9, 1e7, "note")]
)
def test_judges_speed(write: float, read: float, status: str) -> None:
    assert disk.judge_speed("disk", write, read).status == status


def test_measures_speed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_MOST_BYTES", 8 << 20)
    (found,) = disk.check_speed(tmp_path)
    assert "MB/s" in found.found and not any(tmp_path.iterdir())


def test_leaves_nothing_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int, most: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(disk.check_speed(tmp_path))
    assert not any(tmp_path.iterdir())
