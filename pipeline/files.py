"""Files that are whole or absent, and paths that stay where they belong."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UsageError

PARTIAL = ".partial"
"""Ending of files still being written; one that is left over belongs to a killed process and means nothing."""


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that appears at `path`, complete and on disk, when the block ends without an error.

    The bytes go to a temporary name in the same directory, are fsynced, renamed over `path`, and the directory is
    fsynced: after a crash at any instant `path` holds the old bytes or the new ones.

    Args:
        durable: False for a copy of what is kept elsewhere: after a power cut it may hold anything.
    """
    if durable:
        make_durable(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(path.parent)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Make `path` hold `data` (text as UTF-8), whole and durable, or leave it as it was."""
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes were writing in a folder; nobody may be writing there now."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


def make_durable(directory: Path) -> None:
    """Make a directory, and those above it, whose names survive a power cut as well."""
    if directory.is_dir():
        return
    make_durable(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make renames and new files in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def can_be_path(text: str) -> bool:
    """Whether a file could be called so: no NUL, and nothing but characters that have bytes."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative`, refused when it leads out of `root`, through `..` or a symbolic link.

    Raises:
        UsageError: the path is absolute, or resolves to a place outside `root`, or to none.
    """
    path = root / relative
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise UsageError(
            f"{relative}: paths must stay inside {root}", "use a path relative to the root, without '..'"
        )
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # symbolic links in a circle
        raise UsageError(f"{path}: cannot be followed: {error}", "remove the link") from error
    if not target.is_relative_to(root.resolve()):
        raise UsageError(f"{path}: leads out of {root}, to {target}", "copy the files into the root")
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
