"""The machine: processors, memory, and limits that stop programs long after they were started."""

import locale
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.checkup.finding import Finding, note, ok, problem
from pipeline.machine import Memory, Processors, memory, processors

_GB = 1e9
_LEAST_MEMORY = 2 * _GB
_LEAST_SHARED = 1 * _GB
_FEW_FILES, _USUAL_FILES = 256, 4096
_SHARED = Path("/dev/shm")


def check_processors(found: Processors | None = None) -> Iterator[Finding]:
    """Processors, and how much of them the control group gives."""
    found = found or processors()
    text = f"{found.count}, {found.usable} usable by this process"
    if found.quota is not None and found.quota < found.usable:
        yield note(
            "processors",
            f"{text}, time for {found.quota:g}: programs that count them start too many threads",
            f"export OMP_NUM_THREADS={found.worth}, and use --workers {found.worth}",
        )
    else:
        yield ok("processors", text)


def check_threads(
    environment: Mapping[str, str] | None = None, found: Processors | None = None
) -> Iterator[Finding]:
    """OMP_NUM_THREADS, which decides how many threads compute on a CPU."""
    found = found or processors()
    text = (os.environ if environment is None else environment).get("OMP_NUM_THREADS")
    name = "OMP_NUM_THREADS"
    if text is None:
        yield ok(name, "not set: as many threads as processors")
    elif not text.isdigit() or int(text) < 1:
        yield problem(name, f"{text!r} is not a number of threads", f"export {name}={found.worth}")
    elif int(text) > found.worth:
        yield note(
            name,
            f"{text} threads share {found.worth} processors, and wait for each other",
            f"export {name}={found.worth}",
        )
    elif int(text) == 1 < found.worth:
        yield note(name, f"1: training on the CPU uses one of {found.worth} processors", f"unset {name}")
    else:
        yield ok(name, text)


def check_memory(found: Memory | None = None) -> Iterator[Finding]:
    """Main memory, and the limit of the control group."""
    found = found or memory()
    text = f"{found.available / _GB:.1f} of {found.total / _GB:.1f} GB available"
    if found.limit is not None:
        text += f", control group limited to {found.limit / _GB:.1f} GB"
    if found.available < _LEAST_MEMORY:
        yield problem("memory", text, "end other programs, or ask for a larger container")
    else:
        yield ok("memory", text)


def check_shared_memory(folder: Path = _SHARED, total: int | None = None) -> Iterator[Finding]:
    """`/dev/shm`, through which processes on several GPUs exchange gradients."""
    if total is None:
        if not folder.is_dir():
            yield note(f"{folder}", "not there: NCCL on several GPUs needs it", "mount a tmpfs there")
            return
        total = shutil.disk_usage(folder).total
    if total < _LEAST_SHARED:
        found = f"{total / 1e6:.0f} MB, little for NCCL on several GPUs"
        yield note(f"{folder}", found, "docker run --shm-size=8g …, or --ipc=host")
    else:
        yield ok(f"{folder}", f"{total / _GB:.1f} GB")


def check_open_files(limits: tuple[int, int] | None = None) -> Iterator[Finding]:
    """How many files may be open at the same time.

    Args:
        limits: the soft one and the hard one; -1 is none.
    """
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _USUAL_FILES:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")
        return
    most = _USUAL_FILES if hard == resource.RLIM_INFINITY else min(hard, 16 * _USUAL_FILES)
    fix = f"ulimit -n {most}" if most > soft else "raise the hard limit in /etc/security/limits.conf"
    make = problem if soft < _FEW_FILES else note
    yield make("open files", f"up to {soft}, few for a store of many shards", fix)


def check_locale(encoding: str | None = None, names: str | None = None) -> Iterator[Finding]:
    """How text and file names are encoded.

    Args:
        encoding, names: of text, and of file names; those of this process by default.
    """
    encoding = encoding or locale.getpreferredencoding(False)
    names = names or sys.getfilesystemencoding()
    if all(one.lower().replace("-", "") == "utf8" for one in (encoding, names)):
        yield ok("locale", "UTF-8")
    else:
        found = f"text in {encoding}, file names in {names}: others than ASCII may fail"
        yield note("locale", found, "export LC_ALL=C.UTF-8")


def check_clock(now: float | None = None, written: float | None = None) -> Iterator[Finding]:
    """Whether the clock is later than this program was written.

    Args:
        now, written: in seconds since 1970.
    """
    now = time.time() if now is None else now
    written = Path(__file__).stat().st_mtime if written is None else written
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < written:
        found = f"{shown}, which is before this program was installed"
        yield problem("clock", found, "timedatectl set-ntp true")
    else:
        yield ok("clock", shown)
