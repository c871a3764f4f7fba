"""What must hold of every input file before it is opened, and how much of a file may be read at once."""

import stat
from pathlib import Path

from pipeline.errors import FormatError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_file(path: Path, what: str) -> int:
    """Return the size of the ordinary file `path` in bytes, without opening it (a named pipe would block).

    Raises:
        FormatError: no such file, or a directory, pipe or device, or out of reach, or empty.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", f"put the {what} there, or correct the path") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise FormatError(f"{path}: {_KINDS.get(kind, 'not an ordinary file')}, expected a {what} file")
    if status.st_size == 0:
        raise FormatError(f"{path}: empty, expected a {what} file", "copy it again from its source")
    return status.st_size


def read_small_text(path: Path, what: str, max_bytes: int) -> str:
    """Read a whole UTF-8 text file (a byte-order mark is dropped).

    Raises:
        FormatError: as `require_file`, or larger than `max_bytes`, or not UTF-8.
    """
    size = require_file(path, what)
    if size > max_bytes:
        raise FormatError(f"{path}: {size} bytes is more than the {max_bytes} of a {what} file")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not UTF-8 text, expected a {what} file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
