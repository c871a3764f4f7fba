from pathlib import Path

import pytest

from pipeline.checkup import host
from pipeline.machine import Memory, Processors

GB = 10**9
EIGHT = Processors(count=64, usable=8, quota=None)


def test_a_quota_below_the_processors_is_worth_knowing() -> None:
    (found,) = host.check_processors(Processors(count=64, usable=64, quota=4.0))
    assert found.status == "note" and "OMP_NUM_THREADS=4" in found.fix
    assert next(host.check_processors(EIGHT)).found == "64, 8 usable by this process"


@pytest.mark.parametrize(
    ("text", "status", "word"),
    [
        (None, "ok", ""),
        ("8", "ok", ""),
        ("1", "note", "unset"),
        ("32", "note", "=8"),
        ("many", "problem", "=8"),
    ],
)
def test_judges_the_number_of_threads(text: str | None, status: str, word: str) -> None:
    (found,) = host.check_threads({"OMP_NUM_THREADS": text} if text else {}, EIGHT)
    assert found.status == status and word in found.fix


def test_too_little_memory_is_a_problem() -> None:
    (found,) = host.check_memory(Memory(total=64 * GB, available=GB, limit=4 * GB))
    assert found.status == "problem" and "limited to 4.0 GB" in found.found
    assert next(host.check_memory(Memory(total=64 * GB, available=9 * GB, limit=None))).status == "ok"


def test_little_shared_memory_is_worth_knowing(tmp_path: Path) -> None:
    (found,) = host.check_shared_memory(total=64 << 20)
    assert found.status == "note" and "--shm-size" in found.fix and found.found.startswith("67 MB")
    assert next(host.check_shared_memory(tmp_path / "none")).status == "note"
    assert next(host.check_shared_memory(total=8 * GB)).status == "ok"


@pytest.mark.parametrize(
    ("limits", "status", "fix"),
    [
        ((128, 1 << 20), "problem", "ulimit -n 65536"),
        ((1024, 4096), "note", "ulimit -n 4096"),
        ((1024, 1024), "note", "raise the hard limit in /etc/security/limits.conf"),
        ((1024, -1), "note", "ulimit -n 4096"),
        ((65536, 65536), "ok", ""),
        ((-1, -1), "ok", ""),
    ],
)
def test_judges_how_many_files_may_be_open(limits: tuple[int, int], status: str, fix: str) -> None:
    (found,) = host.check_open_files(limits)
    assert (found.status, found.fix) == (status, fix)


def test_an_encoding_other_than_utf8_is_worth_knowing() -> None:
    assert next(host.check_locale("ANSI_X3.4-1968", "utf-8")).fix == "export LC_ALL=C.UTF-8"
    assert next(host.check_locale("UTF-8", "utf-8")).status == "ok"


def test_a_clock_in_the_past_is_a_problem() -> None:
    (found,) = host.check_clock(now=0.0, written=1e9)
    assert found.status == "problem" and found.found.startswith("1970-01-01")
    assert next(host.check_clock()).status == "ok"


def test_this_machine_is_looked_at_without_facts() -> None:
    checks = (host.check_processors, host.check_threads, host.check_memory, host.check_shared_memory)
    assert all(list(check()) for check in (*checks, host.check_open_files, host.check_locale))
