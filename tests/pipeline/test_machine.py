from pathlib import Path

import pytest

from pipeline.machine import Processors, memory, peak_memory_bytes, processors

GB = 1 << 30


@pytest.fixture
def kernel(tmp_path: Path):
    """What a kernel tells, as files: `kernel({"proc/meminfo": "…"})` gives the two folders to ask."""

    def make(files: dict[str, str]) -> tuple[Path, Path]:
        texts = {
            "proc/meminfo": f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {32 << 20} kB\n",
            **files,
        }
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path / "proc", tmp_path / "cgroup"

    return make


def test_reads_the_memory_of_the_machine(kernel) -> None:
    found = memory(*kernel({}))
    assert (found.total, found.available, found.limit) == (64 * GB, 32 * GB, None)


def test_a_control_group_limits_memory_and_gives_back_its_cache(kernel) -> None:
    files = {
        "proc/self/cgroup": "0::/job/step\n",
        "cgroup/job/memory.max": f"{8 * GB}\n",
        "cgroup/job/memory.current": f"{5 * GB}\n",
        "cgroup/job/memory.stat": f"anon 1\ninactive_file {2 * GB}\n",
        "cgroup/job/step/memory.max": "max\n",
    }
    found = memory(*kernel(files))
    assert (found.limit, found.available) == (8 * GB, 5 * GB)


def test_a_control_group_of_version_1_limits_memory(kernel) -> None:
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
        "cgroup/memory/memory.limit_in_bytes": f"{4 * GB}\n",  # the path is that of the host
        "cgroup/memory/memory.usage_in_bytes": f"{1 * GB}\n",
    }
    found = memory(*kernel(files))
    assert (found.limit, found.available) == (4 * GB, 3 * GB)


def test_the_huge_number_of_version_1_is_no_limit(kernel) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    assert memory(*kernel(files)).limit is None


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "1:cpu,cpuacct:/\n",
                "cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_a_control_group_limits_processors(kernel, files: dict[str, str], quota: float | None) -> None:
    found = processors(*kernel(files))
    assert found.quota == quota and found.usable >= 1


@pytest.mark.parametrize(("quota", "worth"), [(None, 8), (2.5, 2), (0.5, 1), (64.0, 8)])
def test_counts_threads_that_can_run_at_the_same_time(quota: float | None, worth: int) -> None:
    assert Processors(count=16, usable=8, quota=quota).worth == worth


def test_remembers_the_most_memory_of_this_process(tmp_path: Path) -> None:
    before = peak_memory_bytes()
    filled = bytearray(64 << 20)
    assert peak_memory_bytes() - before > 0 or before > len(filled)
    assert peak_memory_bytes(tmp_path) > 1 << 20  # without the kernel's file, from getrusage
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nVmHWM:\t  2048 kB\n")
    assert peak_memory_bytes(tmp_path) == 2 << 20
