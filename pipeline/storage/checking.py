"""Is a shard, byte for byte, the one that was written? Looked at without trusting what it says of itself."""

import stat
from pathlib import Path

import google_crc32c
import numpy as np

from pipeline.storage.mirror import Mirror, mirror_of
from pipeline.storage.shards import CRC_BYTES, MISSING, SEAL_BYTES, ArrayLayout, Receipt, crc32c_bytes


def shard_problem(path: Path, layout: ArrayLayout, receipt: Receipt, *, deep: bool) -> str | None:
    """What is wrong with a shard; None if nothing is.

    Args:
        receipt: what the array's ledger says of it.
        deep: compare every byte with its checksum, not only the file's size.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "not an ordinary file"
        if status.st_size != receipt.size:
            return f"{status.st_size} bytes, but {receipt.size} were written"
        return _byte_problem(np.memmap(path, np.uint8, "r"), layout, receipt) if deep else None
    except FileNotFoundError:
        mirror = mirror_of(path)
        return "missing" if mirror is None else _object_problem(mirror, path, layout, receipt, deep=deep)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _object_problem(
    mirror: Mirror, path: Path, layout: ArrayLayout, receipt: Receipt, *, deep: bool
) -> str | None:
    """The same of a shard in an object store, whatever copies of it there are here."""
    size = receipt.size if mirror.holds(path, receipt.size) else mirror.size(path)
    if size is None:
        return "missing"
    if size != receipt.size:
        return f"{size} bytes, but {receipt.size} were written"
    if not deep:
        return None
    with mirror.fresh_copy(path, size) as copy:
        return _byte_problem(np.memmap(copy, np.uint8, "r"), layout, receipt)


def _byte_problem(data: np.memmap, layout: ArrayLayout, receipt: Receipt) -> str | None:
    tail = data[-layout.index_bytes - SEAL_BYTES :].tobytes()
    index, checksum = tail[SEAL_BYTES:-CRC_BYTES], tail[-CRC_BYTES:]
    if len(tail) != layout.index_bytes + SEAL_BYTES or crc32c_bytes(index) != checksum:
        return "its index does not match its checksum"
    if int.from_bytes(tail[:SEAL_BYTES], "little") != receipt.seal:
        return "not the shard that was written here"
    seal, damaged = 0, []
    for number, (offset, length) in enumerate(np.frombuffer(index, "<u8").reshape(-1, 2).tolist()):
        if offset == int(MISSING):
            continue
        stored = data[offset + length - CRC_BYTES : offset + length].tobytes()
        if crc32c_bytes(data[offset : offset + length - CRC_BYTES]) != stored:
            damaged.append(number)
        seal = google_crc32c.extend(seal, stored)
    if damaged:
        return f"{len(damaged)} of its chunks do not match their checksums, the first is number {damaged[0]}"
    if google_crc32c.extend(seal, index) != receipt.seal:
        return "its chunks are not those that were written here"
    return None
