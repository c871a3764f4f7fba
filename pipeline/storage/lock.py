"""One writer at a time: the lock of a folder, which says who holds it, and which the kernel takes from the dead.

Processes that build parts of one stage share that of the store.
"""

import contextlib
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SpkError, StoreError
from pipeline.storage.root import WORK


@contextlib.contextmanager
def lock_store(store: Path, *, shared: bool = False) -> Iterator[None]:
    """Be the only process that writes to the store, for the time of a `with` block.

    Args:
        shared: be one of several, none of which is the only one.

    Raises:
        StoreError: another process is writing; a link in the store leads elsewhere.
    """
    _refuse_links(store)
    with hold_lock(store / WORK / "lock", store, shared=shared):
        yield


@contextlib.contextmanager
def hold_lock(
    path: Path, place: Path, *, shared: bool = False, error: type[SpkError] = StoreError
) -> Iterator[None]:
    """Hold the lock that the file `path` is, for the time of a `with` block.

    The file goes at the end, and so does its folder if nothing else is in it.

    Args:
        place: what is locked, for people.
        shared: hold it together with others that share it.
        error: what to raise where another process holds it.

    Raises:
        OSError: the file system cannot make the file, or knows no locks.
    """
    descriptor = _lock(path, place, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # none but the last of several gets it
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                path.unlink()
                path.parent.rmdir()
        os.close(descriptor)


def has_stale_lock(store: Path) -> bool:
    """Did a process that held the store's lock die, so that its file is there and nobody holds it?"""
    path = store / WORK / "lock"
    try:
        return not is_locked(path)
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Does anybody hold a lock on this file? Nobody does where the file system knows no locks.

    Raises:
        FileNotFoundError: it is not there.
    """
    with path.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _refuse_links(folder: Path) -> None:
    """Refuse to write where a link would take the bytes out of the store, or a pipe would swallow them."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            with contextlib.suppress(FileNotFoundError):  # another process is at work, and the lock will tell
                if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                    raise StoreError(
                        f"{path}: a link or special file in a store", "remove it, and build again"
                    )
        if "zarr.json" in files and "c" in folders:
            folders.remove("c")  # shards are never written through, and readers look at each


MOST_ATTEMPTS = 1000


def _lock(path: Path, place: Path, how: int, error: type[SpkError]) -> int:
    """Take a lock, or say who holds it. The kernel lets go of it when its owner dies, however it dies."""
    attempts = (_try_lock(path, place, how, error) for _ in range(MOST_ATTEMPTS))
    descriptor = next((taken for taken in attempts if taken is not None), None)
    if descriptor is None:
        raise error(f"{path}: cannot be made, or comes and goes", "look what is at that path")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, os.fsencode(describe_process()), 0)
    return descriptor


def describe_process() -> str:
    """Which process this is, for others that have to wait for it."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:2000]
    return f"process {os.getpid()} on {socket.gethostname()}: {command}"


def _try_lock(path: Path, place: Path, how: int, error: type[SpkError]) -> int | None:
    """The lock's descriptor; None where an owner before us finished, and took file or folder away meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileNotFoundError, FileExistsError):
        return None
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except FileNotFoundError:
        pass
    except BlockingIOError:
        owner = os.pread(descriptor, 4096, 0).decode(errors="replace") or "it does not say who"
        os.close(descriptor)
        raise error(f"{place}: another process is writing: {owner}", "wait for it, or stop it") from None
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
