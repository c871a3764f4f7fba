"""NumPy files from outside, opened without trusting them: no pickles, no unbounded unpacking."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import FormatError

MAX_UNPACKED_BYTES = 2 << 30
"""An `.npz` is read whole: what is larger must be converted to `.npy` or `.dat`, which are mapped."""
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    EOFError,
    TypeError,
    SyntaxError,
    OverflowError,
    LookupError,
    AttributeError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)
"""What numpy's reader and zipfile raise on damaged or hostile bytes."""


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map the array of an `.npy` file read-only.

    Raises:
        FormatError: it is not one, is cut short, or holds Python objects.
    """
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except _DAMAGE as error:
        raise FormatError(f"{path}: not a readable .npy array: {_one_line(error)}") from error


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays of an `.npz` file.

    Raises:
        FormatError: it is not one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _DAMAGE as error:
        raise FormatError(f"{path}: not a readable .npz file: {_one_line(error)}") from error


def read_npz(path: Path, key: str | None, max_bytes: int = MAX_UNPACKED_BYTES) -> npt.NDArray[Any]:
    """Read one array of an `.npz` file: the one named `key`, or the only one.

    Raises:
        FormatError: it is not an `.npz`, is damaged, has no such array, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_member(path, archive, _choose(path, archive, key), max_bytes)
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{path}: not a readable .npz file: {_one_line(error)}") from error


def npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array of an `.npz` file, by its key, from their headers.

    Raises:
        FormatError: it is not an `.npz`, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            return {name: _header(archive, name)[:2] for name in names}
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{path}: not a readable .npz file: {_one_line(error)}") from error


def _choose(path: Path, archive: zipfile.ZipFile, key: str | None) -> str:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        wanted = f"no array {key!r}" if key else "several arrays"
        raise FormatError(f"{path}: {wanted}; it holds {', '.join(names)}", "set `key` in the spike format")
    return key


def _read_member(path: Path, archive: zipfile.ZipFile, name: str, max_bytes: int) -> npt.NDArray[Any]:
    shape, dtype, header_bytes = _header(archive, name)
    unpacked = math.prod(shape) * dtype.itemsize
    if unpacked > max_bytes:
        raise FormatError(
            f"{path}: {name} unpacks to {unpacked} bytes, more than {max_bytes}",
            "convert it to .npy or .dat, which are mapped instead of read whole",
        )
    if not dtype.hasobject and header_bytes + unpacked != archive.getinfo(f"{name}.npy").file_size:
        raise ValueError(f"{name} has not the size of an array of shape {shape}")
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and type of a member, and the bytes of its header."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        headers = np.lib.format
        read = headers.read_array_header_1_0 if version == (1, 0) else headers.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype, file.tell()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
