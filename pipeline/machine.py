"""What the machine gives this process: memory and processors, within the limits of its control group.

A container sees all of the machine in `/proc/meminfo` and `os.cpu_count()`, and is stopped, or slowed down, at its own
limits all the same.
"""

import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Main memory, in bytes.

    Attributes:
        total: of the machine.
        available: what this process could still take without anything being stopped or swapped.
        limit: of the control group; None without one.
    """

    total: int
    available: int
    limit: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Processors:
    """Logical processors.

    Attributes:
        count: of the machine.
        usable: that this process may run on.
        quota: processors' worth of time the control group gives; None without a limit.
    """

    count: int
    usable: int
    quota: float | None

    @property
    def worth(self) -> int:
        """Threads that can run at the same time, at least 1."""
        return max(1, min(self.usable, int(self.quota) if self.quota else self.usable))


def memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Memory:
    """The main memory that there is, and is left.

    Args:
        proc, cgroups: where the kernel tells.
    """
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE))
    page = os.sysconf("SC_PAGE_SIZE")
    total = int(fields["MemTotal"]) * 1024 if "MemTotal" in fields else page * os.sysconf("SC_PHYS_PAGES")
    available = int(fields["MemAvailable"]) * 1024 if "MemAvailable" in fields else total
    limits = []
    for folder in _groups("memory", proc, cgroups):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        if limit is None or limit >= total:  # version 1 writes a huge number where there is none
            continue
        limits.append(limit)
        used = _number(folder, "memory.current", "memory.usage_in_bytes") or 0
        stat = dict(re.findall(r"^(\w+) (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
        cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))  # given back on demand
        available = min(available, max(limit - used + cached, 0))
    return Memory(total=total, available=available, limit=min(limits, default=None))


def processors(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Processors:
    """The processors that there are, and how much of them this process may use."""
    quotas = []
    for folder in _groups("cpu", proc, cgroups):
        both = _text(folder / "cpu.max").split() or [
            _text(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        ]
        if len(both) == 2 and both[0].isdigit() and both[1].isdigit() and int(both[1]):
            quotas.append(int(both[0]) / int(both[1]))
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return Processors(count=count, usable=usable, quota=min(quotas, default=None))


def peak_memory_bytes(proc: Path = _PROC) -> int:
    """The most main memory that this process has held.

    `getrusage` tells too much for a process that was started by a larger one: it remembers that one's.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _text(proc / "self" / "status"), re.MULTILINE)
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _groups(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of this process's control group for `controller` and of those above it, which all limit it."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            root = cgroups / controller if (cgroups / controller).exists() else cgroups / names
        elif not names:
            root = cgroups
        else:
            continue
        # In a container the path may be that of the host, of which only the root is to be seen.
        parts = Path(path.lstrip("/")).parts
        yield from (root.joinpath(*parts[:end]) for end in range(len(parts), -1, -1))


def _number(folder: Path, *names: str) -> int | None:
    """What the first of these files that there is holds; None for "max"."""
    text = next((text for name in names if (text := _text(folder / name).strip())), "")
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """What a file of the kernel says; "" where there is none or it may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
