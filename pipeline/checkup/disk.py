"""The disk under a folder: what kind it is, how much is free, how fast it is, and whether it keeps its promises."""

import fcntl
import mmap
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.checkup.finding import Finding, note, ok, problem
from pipeline.files import sync_directory
from pipeline.mounts import Mount, mount_of

_NETWORK = re.compile(r"nfs|cifs|smb|lustre|gpfs|beegfs|ceph|afs|9p|glusterfs|fuse\.")
_GB = 1e9
_SECONDS = 0.8
_MOST_BYTES = 256 << 20
_BLOCK = 4 << 20
_PIECE = 128 << 10
"""About a tile of a frame, which is what training reads."""
_SLOW_WRITE, _SLOW_READ = 50e6, 100e6
_LEAST_FREE, _LITTLE_FREE = 1 * _GB, 20 * _GB
_LEAST_FILES = 1000
_SKEW_S = 5.0


def check_file_system(folder: Path, mount: Mount | None = None) -> Iterator[Finding]:
    """The kind of file system, and whether it is one over a network.

    Args:
        mount: that the folder is on; looked for by default.
    """
    name, mount = f"file system of {folder}", mount or mount_of(folder)
    if mount is None:
        yield ok(name, "unknown: the system does not tell")
    elif _NETWORK.match(mount.kind):
        yield note(
            name,
            f"{mount}: locks and maps depend on its server, and reads on the network",
            "keep the store on a disk of this machine for training, and one writer at a time",
        )
    elif mount.kind in ("tmpfs", "ramfs"):
        found = f"{mount}: in memory, and gone after a restart"
        yield note(name, found, "keep stores and runs on a disk")
    else:
        yield ok(name, f"{mount}")


def check_space(folder: Path, free: int | None = None, files: int | None = None) -> Iterator[Finding]:
    """Bytes that are free, and files that can still be made.

    Args:
        free, files: of the disk; asked for by default.
    """
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize if free is None else free
    files = (facts.f_favail if facts.f_files else None) if files is None else files
    name, text = f"space at {folder}", f"{free / _GB:.1f} GB free"
    fix = f"remove what is not needed (du -sh {folder}/*), or use another disk"
    if free < _LEAST_FREE:
        yield problem(name, text, fix)
    elif files is not None and files < _LEAST_FILES:
        yield problem(name, f"{text}, but only {files} more files can be made", fix)
    elif free < _LITTLE_FREE:
        yield note(name, f"{text}, little for a store or checkpoints", fix)
    else:
        yield ok(name, text)


def check_promises(folder: Path) -> Iterator[Finding]:
    """What atomic writes, one writer at a time and mapped reads rely on: rename, fsync, flock, mmap."""
    name = f"promises at {folder}"
    if not os.access(folder, os.W_OK):
        yield note(name, "not writable: reading is all that can be done here", f"ls -ld {folder}")
        return
    kept = []
    with tempfile.TemporaryDirectory(prefix=".spk-doctor-", dir=folder) as made:
        trials = {"rename and fsync": _renames, "flock": _locks, "mmap": _maps}
        for what, trial in trials.items():
            try:
                trial(Path(made))
            except OSError as error:
                fix = "use another disk: builds and checkpoints are not safe on this one"
                yield problem(name, f"{what}: {error.strerror or error}", fix)
            else:
                kept.append(what)
        stamp = Path(made) / "stamp"
        stamp.touch()
        skew = stamp.stat().st_mtime - time.time()
    if abs(skew) > _SKEW_S:
        found = f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        yield note(name, found, "timedatectl set-ntp true, here and on the server")
    if kept:
        yield ok(name, f"{', '.join(kept)} work")


def check_speed(folder: Path) -> Iterator[Finding]:
    """Writing in a row, and reading small pieces anywhere, past the page cache.

    The file has no name, so that nothing is left however this ends.
    """
    name = f"speed at {folder}"
    if not os.access(folder, os.W_OK):
        yield note(name, "not writable: not measured")
        return
    most = min(_MOST_BYTES, shutil.disk_usage(folder).free // 4)
    with tempfile.TemporaryFile(dir=folder) as file:
        written, write_s = _write(file.fileno(), most)
        read, read_s = _read(file.fileno(), written)
    if not read:
        yield note(name, "too little space to measure")
        return
    yield judge_speed(name, written / write_s, read / read_s)


def judge_speed(name: str, write_rate: float, read_rate: float) -> Finding:
    """What to say of bytes a second."""
    found = f"writes {write_rate / 1e6:.0f} MB/s with fsync, random reads {read_rate / 1e6:.0f} MB/s"
    if read_rate < _SLOW_READ:
        return note(
            name, f"{found}: training may wait for clips", "keep the store on a faster disk, or --codec lz4"
        )
    if write_rate < _SLOW_WRITE:
        return note(name, f"{found}: ingest and checkpoints will be slow", "write to a faster disk")
    return ok(name, found)


def _write(descriptor: int, most: int) -> tuple[int, float]:
    """Bytes written, and seconds until they were on the disk."""
    block = random.Random(0).randbytes(_BLOCK)  # what is all alike may not be written at all
    written, begun = 0, time.perf_counter()
    while written + _BLOCK <= most and time.perf_counter() - begun < _SECONDS:
        written += os.write(descriptor, block)
    os.fsync(descriptor)
    return written, time.perf_counter() - begun


def _read(descriptor: int, size: int) -> tuple[int, float]:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    pieces = list(range(0, size - _PIECE + 1, _PIECE))
    random.Random(0).shuffle(pieces)
    read, begun = 0, time.perf_counter()
    for offset in pieces:
        read += len(os.pread(descriptor, _PIECE, offset))
        if time.perf_counter() - begun > _SECONDS:
            break
    return read, time.perf_counter() - begun


def _renames(folder: Path) -> None:
    for name in ("old", "new"):
        with (folder / name).open("w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
    os.replace(folder / "new", folder / "old")
    sync_directory(folder)
    if (folder / "old").read_text() != "new":
        raise OSError("a renamed file does not hold what it held before")


def _locks(folder: Path) -> None:
    path = folder / "lock"
    with path.open("w") as first, path.open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    raise OSError("a second writer gets the lock as well")


def _maps(folder: Path) -> None:
    path = folder / "mapped"
    path.write_bytes(b"mapped" * 1000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        if view[-6:] != b"mapped":
            raise OSError("a mapped file does not hold what was written")
