"""Shards of a Zarr v3 array: how they are laid out, encoded and written.

An array is a grid of *shards* (one file each), a shard a grid of *inner chunks* followed by an index of
(offset, length) pairs. Every inner chunk and the index end in a crc32c, so a flipped bit cannot go unseen. Files
follow the `sharding_indexed` codec of the Zarr v3 specification and open in any Zarr reader.

Between chunks and index stand four bytes that no chunk refers to, the *seal*: the crc32c of all those checksums and
of the index, and so of everything in the file. The array's ledger has it as well: a shard that is whole but of another
place or time is told by one look at its end.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt

from pipeline.files import atomic_file

Codec = Literal["none", "lz4", "zstd"]
DataType = Literal["uint8", "uint16", "int64"]
Index = tuple[int, ...]
Region = tuple[slice, ...]
"""A part of an array, counted from its beginning."""

MISSING = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Offset and length, in a shard's index, of an inner chunk that is not there."""
CRC_BYTES = 4
SEAL_BYTES = 4
TARGET_SHARD_BYTES = 128 << 20
"""Decoded bytes of a shard. 100 TB are 800,000 files then, each built, and where needed built again, in a second or
less; building one takes the memory of an inner chunk, whatever this is."""
TARGET_TILE = 128
SMALLEST_TILE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayLayout:
    """Shape of an array and of its shards and inner chunks.

    Attributes:
        shape: of the array; `names` names its axes.
        shard: shape of a shard, a multiple of `chunk` on every axis; the last shard of an axis may be partly empty.
        chunk: shape of an inner chunk.
        codec: "none" keeps inner chunks as they are, to be read straight from the map; lz4 and zstd are Blosc with
            bitshuffle.
    """

    shape: Index
    shard: Index
    chunk: Index
    names: tuple[str, ...]
    dtype: DataType = "uint8"
    codec: Codec = "none"

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.shard) == len(self.chunk) == len(self.names):
            raise ValueError(f"{self.shape}, {self.shard}, {self.chunk} and {self.names} differ in length")
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shards of {self.shard} are not made of whole chunks of {self.chunk}")

    @property
    def grid(self) -> Index:
        """How many shards there are along each axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))

    @property
    def chunks_per_shard(self) -> Index:
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded inner chunk."""
        return math.prod(self.chunk) * np.dtype(self.dtype).itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard, with its checksum."""
        return 16 * math.prod(self.chunks_per_shard) + CRC_BYTES

    def shards(self) -> Iterator[Index]:
        """The positions of all shards, last axis fastest."""
        return itertools.product(*(range(n) for n in self.grid))

    def region(self, shard: Index) -> Region:
        """The part of the array that a shard holds."""
        spans = zip(shard, self.shard, self.shape, strict=True)
        return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in spans)

    def parts(self, shard: Index) -> Iterator[tuple[int, Region]]:
        """The number of each inner chunk of a shard, last axis fastest, and the part of the array that it holds.

        Chunks beyond the end of the array are left out, and those that reach beyond it are cut there.
        """
        axes = []
        for part, chunk, count in zip(self.region(shard), self.chunk, self.chunks_per_shard, strict=True):
            starts = [part.start + position * chunk for position in range(count)]
            axes.append([slice(start, min(start + chunk, part.stop)) for start in starts])
        for number, cut in enumerate(itertools.product(*axes)):
            if all(part.start < part.stop for part in cut):
                yield number, cut

    def metadata(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """The array's `zarr.json`."""
        to_bytes: dict[str, Any] = {"name": "bytes"}
        if self.dtype != "uint8":
            to_bytes["configuration"] = {"endian": "little"}
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": list(self.chunk),
            "codecs": [to_bytes, *_compressor_metadata(self), {"name": "crc32c"}],
            "index_codecs": index_codecs,
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shard)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": attributes,
            "dimension_names": list(self.names),
        }


@dataclass(frozen=True, slots=True)
class Receipt:
    """A shard that is on disk: its key below the array, its size in bytes, and its seal."""

    key: str
    size: int
    seal: int


def frames_layout(
    shape: tuple[int, int, int, int],
    names: tuple[str, ...],
    *,
    dtype: DataType = "uint8",
    codec: Codec = "none",
) -> ArrayLayout:
    """Layout of (N, C, H, W) images or voxel grids: tiles of one frame, several frames to a shard."""
    num_frames, channels, height, width = shape
    tile = (tile_side(height), tile_side(width))
    plane = tuple(-(-n // side) * side for n, side in zip((height, width), tile, strict=True))
    frame_bytes = channels * math.prod(plane) * np.dtype(dtype).itemsize
    per_shard = max(1, min(num_frames, TARGET_SHARD_BYTES // frame_bytes))
    shard = (per_shard, channels, *plane)
    chunk = (1, channels, *tile)
    return ArrayLayout(shape=shape, shard=shard, chunk=chunk, names=names, dtype=dtype, codec=codec)


def spikes_layout(shape: tuple[int, int, int], *, codec: Codec = "none") -> ArrayLayout:
    """Layout of (T, H, ceil(W / 8)) packed spikes: whole frames, some to a chunk, many to a shard.

    Chunks that are read in place may be larger than those that must be decoded for the sake of a few frames.
    """
    num_frames, height, row_bytes = shape
    frame_bytes = height * row_bytes
    target = 1 << 20 if codec == "none" else 256 << 10
    per_chunk = max(1, min(num_frames, target // frame_bytes))
    chunks = max(1, min(-(-num_frames // per_chunk), TARGET_SHARD_BYTES // (per_chunk * frame_bytes)))
    names = ("spike_frame", "spike_row", "spike_byte")
    chunk = (per_chunk, height, row_bytes)
    shard = (chunks * per_chunk, height, row_bytes)
    return ArrayLayout(shape=shape, shard=shard, chunk=chunk, names=names, codec=codec)


def table_layout(shape: Index, names: tuple[str, ...]) -> ArrayLayout:
    """Layout of a small int64 table: one shard, one chunk."""
    whole = tuple(max(1, n) for n in shape)
    return ArrayLayout(shape=shape, shard=whole, chunk=whole, names=names, dtype="int64")


def tile_side(size: int) -> int:
    """Side of the tiles an axis is cut into: the largest divisor from 64 to 128, else the one that wastes least."""
    if size <= TARGET_TILE:
        return size
    candidates = range(TARGET_TILE, SMALLEST_TILE - 1, -1)
    return min(candidates, key=lambda side: (-size % side, -side))


def shard_key(shard: Index) -> str:
    """Where a shard lies, relative to the array's directory."""
    return "/".join(("c", *map(str, shard)))


def write_shard(array: Path, layout: ArrayLayout, shard: Index, values: npt.NDArray[Any]) -> Receipt:
    """Write one shard, whole and durable.

    Args:
        values: of `layout.region(shard)`.

    Raises:
        ValueError: they have another shape or type.
    """
    region = layout.region(shard)
    expected = _shape(region)
    if values.shape != expected or values.dtype != np.dtype(layout.dtype):
        raise ValueError(f"block of {values.dtype} {values.shape}, expected {layout.dtype} {expected}")
    return write_chunks(array, layout, shard, lambda part: values[inside(part, region)])


def write_chunks(
    array: Path, layout: ArrayLayout, shard: Index, chunk: Callable[[Region], npt.NDArray[Any]]
) -> Receipt:
    """Write one shard, whole and durable, of inner chunks that are made one by one.

    Args:
        chunk: the values of a part of the array, an inner chunk or what of it is in the array; it is called for one
            after the other, last axis fastest, and may use the same memory for all of them.

    Raises:
        ValueError: values have another shape or type.
    """
    key = shard_key(shard)
    with atomic_file(array / key) as file:
        seal = _write_encoded(file, layout, shard, chunk)
        size = file.tell()
    return Receipt(key, size, seal)


def inside(part: Region, region: Region) -> Region:
    """A part of an array, counted from the beginning of a region that it lies in."""
    return tuple(slice(p.start - r.start, p.stop - r.start) for p, r in zip(part, region, strict=True))


def _shape(region: Region) -> Index:
    return tuple(part.stop - part.start for part in region)


def crc32c_bytes(data: Any) -> bytes:
    """The crc32c of `data` as Zarr appends it: 4 bytes, little-endian."""
    return google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def compressor(codec: Codec, itemsize: int = 1) -> Any:
    """The numcodecs Blosc of a codec's name, for values of so many bytes; or None."""
    if codec == "none":
        return None
    from numcodecs import Blosc, blosc

    blosc.use_threads = False  # threads write their blocks in the order they finish: other bytes every time
    return Blosc(cname=codec, clevel=_CLEVEL[codec], shuffle=Blosc.BITSHUFFLE, typesize=itemsize)


_CLEVEL = {"lz4": 5, "zstd": 3}


def _compressor_metadata(layout: ArrayLayout) -> list[dict[str, Any]]:
    if layout.codec == "none":
        return []
    level = _CLEVEL[layout.codec]
    settings = {
        "cname": layout.codec,
        "clevel": level,
        "shuffle": "bitshuffle",
        "typesize": np.dtype(layout.dtype).itemsize,
        "blocksize": 0,
    }
    return [{"name": "blosc", "configuration": settings}]


def _write_encoded(
    file: BinaryIO, layout: ArrayLayout, shard: Index, chunk: Callable[[Region], npt.NDArray[Any]]
) -> int:
    """Write inner chunks in C order, each with its checksum, then seal and index; return the seal."""
    encoder = compressor(layout.codec, np.dtype(layout.dtype).itemsize)
    index = np.full((math.prod(layout.chunks_per_shard), 2), MISSING, "<u8")
    room = np.empty(layout.chunk, layout.dtype)
    seal, offset = 0, 0
    for number, part in layout.parts(shard):
        data = _chunk_bytes(chunk(part), _shape(part), room)
        if encoder is not None:
            data = encoder.encode(data)
        checksum = crc32c_bytes(data)
        seal = google_crc32c.extend(seal, checksum)
        index[number] = offset, len(data) + CRC_BYTES
        offset += len(data) + CRC_BYTES
        file.write(data)
        file.write(checksum)
    encoded_index = index.tobytes()
    seal = google_crc32c.extend(seal, encoded_index)
    file.write(seal.to_bytes(SEAL_BYTES, "little") + encoded_index + crc32c_bytes(encoded_index))
    return seal


def _chunk_bytes(values: npt.NDArray[Any], expected: Index, room: npt.NDArray[Any]) -> Any:
    """The bytes of a whole inner chunk: the values' own where they lie so in memory, else copied into `room`."""
    if values.shape != expected or values.dtype != room.dtype:
        raise ValueError(f"chunk of {values.dtype} {values.shape}, expected {room.dtype} {expected}")
    if expected != room.shape:
        room.fill(0)
        room[tuple(map(slice, expected))] = values
        values = room
    elif not values.flags.c_contiguous:
        room[...] = values
        values = room
    return values.reshape(-1).view(np.uint8)
