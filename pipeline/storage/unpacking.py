"""Unpacking compressed inner chunks: as far as the planes of their bits, of which a crop needs but a part.

Blosc packs a chunk block by block: it shuffles a block's bits into eight planes, then compresses these. Putting the
bits together again takes four fifths of the time of unpacking, so a chunk is unpacked as if they had never been
shuffled (a flag in its header says whether they were), and `gather` puts together those bytes that are asked for.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

# The header of a Blosc 1 buffer (c-blosc, README_CHUNK_FORMAT.rst).
_FLAGS, _TYPE_BYTES, _UNPACKED, _BLOCK, _HEADER_BYTES = 2, 3, slice(4, 8), slice(8, 12), 16
_COPIED, _BITS_SHUFFLED = 2, 4
SPARE_BYTES = 64
"""Room after an unpacked chunk, which `gather_bits` may look at."""


def unpacked_bytes(data: U8) -> int:
    """How many bytes a compressed chunk says that it unpacks to."""
    return int.from_bytes(data[_UNPACKED].tobytes(), "little") if len(data) >= _HEADER_BYTES else 0


def unpack_planes(data: U8, chunk_bytes: int) -> tuple[U8, int]:
    """A compressed chunk with its bits still shuffled, and the size of its blocks; 0 if they were never shuffled.

    Returns:
        Memory of this thread's, that its next call fills anew: the chunk, and `SPARE_BYTES` more.
    """
    room = _ROOM.of(chunk_bytes + SPARE_BYTES, len(data))
    packed = room.packed[: len(data)]
    packed[:] = data
    block_bytes = int.from_bytes(packed[_BLOCK].tobytes(), "little")
    if not _has_planes(packed, block_bytes, chunk_bytes):
        block_bytes = 0
    else:
        packed[_FLAGS] &= ~_BITS_SHUFFLED & 0xFF
    _decompressor()(packed, room.unpacked[:chunk_bytes])
    return room.unpacked, block_bytes


def room_to_join(size: int) -> U8:
    """`size` bytes or more of this thread's, for `gather_bits`; its next call gives the same again."""
    return _ROOM.to_join(size)


def _has_planes(packed: U8, block_bytes: int, chunk_bytes: int) -> bool:
    """Whether every block is eight planes: Blosc leaves blocks alone that are not whole groups of 8 elements."""
    shuffled = packed[_FLAGS] & (_COPIED | _BITS_SHUFFLED) == _BITS_SHUFFLED
    return bool(
        shuffled and packed[_TYPE_BYTES] == 1 and block_bytes and block_bytes % 8 == chunk_bytes % 8 == 0
    )


class _Room(threading.local):
    """Buffers of a thread, as large as the largest chunk it has unpacked."""

    def __init__(self) -> None:
        self.unpacked = self.packed = self.joined = np.empty(0, np.uint8)

    def of(self, unpacked_bytes: int, packed_bytes: int) -> "_Room":
        if len(self.unpacked) < unpacked_bytes:
            self.unpacked = np.empty(unpacked_bytes, np.uint8)
        if len(self.packed) < packed_bytes:
            self.packed = np.empty(packed_bytes, np.uint8)
        return self

    def to_join(self, size: int) -> U8:
        if len(self.joined) < size:
            self.joined = np.empty(size, np.uint8)
        return self.joined


_ROOM = _Room()


@functools.cache
def _decompressor() -> Callable[[Any, Any], Any]:
    from numcodecs import blosc

    blosc.use_threads = False  # its own threads would take turns: readers are threads themselves
    decompress: Callable[[Any, Any], Any] = blosc.decompress
    return decompress
