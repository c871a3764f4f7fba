import hashlib
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.reader_times import ReaderTimes, Readings


def test_computing_is_told_from_waiting() -> None:
    times = ReaderTimes()
    with times.reading():
        time.sleep(0.05)
    slept = times.lap()
    assert slept.wall_s >= 0.05 and slept.blocked_s > 0.8 * slept.wall_s
    with times.reading():
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            hashlib.sha256(b"x" * 1000).digest()
    computed = times.lap()
    assert computed.cpu_s >= 0.05 and computed.blocked_s < 0.5 * computed.cpu_s


def test_adds_up_the_threads_and_begins_anew_with_a_lap() -> None:
    times = ReaderTimes()

    def read() -> None:
        with times.reading():
            time.sleep(0.02)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.08 <= times.lap().wall_s < 2
    assert times.lap() == Readings()


def test_a_reading_that_fails_counts_as_well() -> None:
    times = ReaderTimes()
    with pytest.raises(OSError), times.reading():
        raise OSError
    assert times.lap().wall_s > 0


def test_waiting_for_a_processor_is_no_waiting_for_a_disk() -> None:
    readings = Readings(wall_s=10.0, cpu_s=2.0, queued_s=7.0)
    assert readings.blocked_s == 1.0
    assert Readings(wall_s=1.0, cpu_s=1.001).blocked_s == 0.0  # two clocks


def test_counts_what_comes_from_the_disk_and_not_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    times = ReaderTimes()
    found, read = [], []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        with times.reading():
            np.memmap(path, np.uint8, "r").sum()
        read.append(512 * (resource.getrusage(resource.RUSAGE_THREAD).ru_inblock - before))
        found.append(times.lap().disk_bytes)
    if not read[0]:
        pytest.skip("these files are in memory only, or the system does not count")
    assert found == read and read[1] == 0
