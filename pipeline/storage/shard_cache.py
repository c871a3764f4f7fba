"""Copies of shards on the local disk: the least recently used ones make room for new ones.

    CACHE/shards/<ab>/<name>       one file a shard; its time of change is when it was last opened

CACHE is ~/.cache/spk, or what SPK_CACHE names; SPK_CACHE_GB limits its size. Any number of processes share it. A file
that is deleted stays whole for whoever has it mapped, so nobody has to be asked.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import StoreError, UsageError
from pipeline.files import PARTIAL

DEFAULT_LIMIT_BYTES = 100_000_000_000
FREE_SHARE = 0.8
"""Without SPK_CACHE_GB: at most this share of the disk's room that is free or the cache's already."""
UNSEEN_SHARE = 0.02
"""What a process may add, as a share of the limit, before it looks again at what others have added."""
SMALL = "set SPK_CACHE_GB to more gigabytes, or SPK_CACHE to a folder on a larger disk"
ABANDONED_S = 3600.0
"""A file half written that did not grow for so long belongs to a process that is gone."""
ATTEMPTS = 8

IsWhole = Callable[[BinaryIO], bool]
Fetch = Callable[[Path], None]


def cache_folder() -> Path:
    """Where copies of what is in object stores are kept."""
    return Path(os.environ.get("SPK_CACHE") or Path.home() / ".cache" / "spk").resolve()


class ShardCache:
    """The copies of one cache folder, as one process uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shards"
        self.fetched = 0  # how many copies this process has made
        self._unseen = 0.0  # bytes this process may still add before it has to look

    def open(self, name: str, size: int, is_whole: IsWhole, fetch: Fetch) -> BinaryIO:
        """Open the copy called `name`, which `fetch` makes where there is none, or none that is whole.

        Args:
            size: in bytes, for which room is made before.
            fetch: makes the file, whole, or raises.

        Raises:
            StoreError: it is deleted again each time before it could be opened.
        """
        path = self.folder / name[:2] / name
        for _ in range(ATTEMPTS):
            if (file := _open_whole(path, is_whole)) is not None:
                return file
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.parent / ".lock"):  # whoever comes second finds it there
                if (file := _open_whole(path, is_whole)) is not None:
                    return file
                self._make_room(size)
                fetch(path)
                self.fetched += 1
                if (file := _open_whole(path, is_whole)) is not None:
                    return file
        raise StoreError(f"{path}: other processes delete it each time before it can be used", SMALL)

    def limit(self) -> float:
        """How many bytes of copies are kept at most."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return limit_bytes(self.folder, sum(num_bytes for _, num_bytes, _ in self._copies()))

    def _make_room(self, size: int) -> None:
        """Delete the least recently used copies until there is room for `size` bytes."""
        self._unseen -= size
        if self._unseen >= 0:
            return
        with locked(self.folder / ".lock"):
            copies = sorted(self._copies())
            held = sum(num_bytes for _, num_bytes, _ in copies)
            limit = limit_bytes(self.folder, held)
            for _, num_bytes, path in copies:
                if held + size <= limit:
                    break
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                held -= num_bytes
            self._unseen = UNSEEN_SHARE * limit

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """When each was used last, its size, and where it is; what killed processes left goes first."""
        for group in os.scandir(self.folder):
            for entry in os.scandir(group.path) if group.is_dir(follow_symlinks=False) else ():
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(PARTIAL) and time.time() - status.st_mtime > ABANDONED_S:
                        os.unlink(entry.path)
                    elif not entry.name.startswith("."):
                        yield status.st_mtime, status.st_size, Path(entry.path)


def limit_bytes(folder: Path, held: int) -> float:
    """How large the cache in `folder`, which holds `held` bytes, may become.

    Raises:
        UsageError: SPK_CACHE_GB is not a number above 0.
    """
    text = os.environ.get("SPK_CACHE_GB")
    if text is None:
        return min(DEFAULT_LIMIT_BYTES, FREE_SHARE * (shutil.disk_usage(folder).free + held))
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UsageError(f"SPK_CACHE_GB={text}: expected a number of gigabytes above 0")
    return limit


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one, of all threads and processes, in a block with this lock file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_whole(path: Path, is_whole: IsWhole) -> BinaryIO | None:
    """The copy, marked as used now; one that is not whole (a power cut may leave it so) is deleted."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        if is_whole(file):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
            file.seek(0)
            stack.pop_all()
            return file
        path.unlink(missing_ok=True)
    return None
