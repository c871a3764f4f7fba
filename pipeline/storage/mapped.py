"""Reading Zarr arrays straight from memory-mapped shards.

Each shard is mapped once per process, compared with the array's ledger, and its index parsed; an inner chunk's
checksum is verified when the chunk is first touched. All processes share the system's page cache, and there is no
cache of our own to configure.
"""

import itertools
import math
import resource
import threading
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.storage.metadata import REPAIR, read_metadata
from pipeline.storage.mirror import open_shard, shard_cache
from pipeline.storage.nodes import ATTEMPTS, Node
from pipeline.storage.remote import UnreachableError
from pipeline.storage.selections import Selectable, Span
from pipeline.storage.shards import (
    CRC_BYTES,
    MISSING,
    SEAL_BYTES,
    ArrayLayout,
    Index,
    Receipt,
    crc32c_bytes,
    shard_key,
)
from pipeline.storage.unpacking import room_to_join, unpack_planes, unpacked_bytes

MAX_CHUNK_BYTES = 1 << 28
"""The largest chunks that are written are tables of a sequence's frames, or single spike frames."""
AXES = 4
"""Arrays of fewer axes are read as if others of length 1 came before."""
_FIRST = np.zeros((1,) * AXES, np.int64)


class MappedArray(Selectable):
    """A Zarr v3 array written by `shards`, read straight from its maps: what lies in one raw chunk is a view of it.

    Attributes:
        path: the array's directory.
        layout: shapes, type and codec; `shape` and `dtype` are those of the array.
        attributes: what its `zarr.json` carries.
    """

    def __init__(self, path: Path, node: Node | None = None) -> None:
        """Open the array in directory `path`.

        Args:
            node: where its generation of a store has it; without one, it is what is at `path`.

        Raises:
            StoreError: there is no such array, or it is not one that this program writes.
        """
        self.path = path
        self._node = node or Node(path, read_metadata(path), (path,))
        self._places = tuple(place.absolute() for place in self._node.places)
        metadata = self._node.metadata
        try:
            self.layout = _layout_from(metadata)
            self.shape, self.dtype = self.layout.shape, np.dtype(self.layout.dtype)
            self.attributes: dict[str, Any] = metadata["attributes"]
            ledger = self.attributes["ledger"].items()
            self._receipts = {key: Receipt(key, int(size), int(seal)) for key, (size, seal) in ledger}
            _require_room(self.layout, self._receipts.values())
            self._chunk, self._per_shard = geometry(self.layout)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise StoreError(f"{path / 'zarr.json'}: not an array written by spk: {error!r}") from error

    @property
    def receipts(self) -> dict[str, Receipt]:
        """What the ledger says of each shard, by its key."""
        return self._receipts

    def located(self, start: int, stop: int) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.int64]] | None:
        """Where items [start, stop) of the first axis are in memory, if each lies there in one piece, as it is.

        Returns:
            Chunks, which keep the memory mapped, and the address of each item; None for items that are compressed or
            cut into several chunks.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        if self.layout.codec != "none" or self.layout.chunk[1:] != self.shape[1:]:
            return None
        chunks, addresses, rest = [], [], (0,) * (len(self.shape) - 1)
        step, per_shard = self.layout.chunk[0], self.layout.shard[0]
        for number in range(start // per_shard, -(-stop // per_shard)):
            shard, origin = self._shard((number, *rest)), number * per_shard
            first, last = max(start - origin, 0), min(stop - origin, per_shard)
            addresses.append(shard.addresses(first, last))
            chunks.append(shard.chunk((first // step, *rest)).view(self.dtype).reshape(self.layout.chunk))
        return chunks, addresses[0] if len(addresses) == 1 else np.concatenate(addresses)

    def _view(self, spans: list[Span]) -> npt.NDArray[Any] | None:
        """The values where they are, if that is in one uncompressed chunk."""
        chunk_shape = self.layout.chunk
        position = tuple(a // c for (a, _), c in zip(spans, chunk_shape, strict=True))
        origin = [p * c for p, c in zip(position, chunk_shape, strict=True)]
        inside = all(a < b <= o + c for (a, b), o, c in zip(spans, origin, chunk_shape, strict=True))
        if self.layout.codec != "none" or not inside:
            return None
        per_shard = self.layout.chunks_per_shard
        shard = tuple(p // n for p, n in zip(position, per_shard, strict=True))
        data = self._shard(shard).chunk(tuple(p % n for p, n in zip(position, per_shard, strict=True)))
        chunk = data.view(self.dtype).reshape(chunk_shape)
        return chunk[tuple(slice(a - o, b - o) for (a, b), o in zip(spans, origin, strict=True))]

    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        if not out.size:
            return
        if self.dtype.itemsize > 1 and out.strides[-1] != self.dtype.itemsize:
            in_rows = np.empty(out.shape, self.dtype)
            self._fill(spans, in_rows)
            out[...] = in_rows
            return
        missing = AXES - len(spans)
        a, b = spans[-1]
        in_bytes = [(0, 1)] * missing + spans[:-1] + [(a * self.dtype.itemsize, b * self.dtype.itemsize)]
        target = out.view(np.uint8)[(None,) * missing]
        chunk, per_shard = self._chunk, self._per_shard
        grid = [
            range(a // (c * n), (b - 1) // (c * n) + 1)
            for (a, b), c, n in zip(in_bytes, chunk, per_shard, strict=True)
        ]
        for shard in itertools.product(*grid):
            box, base = [], []
            for position, (a, b), c, n in zip(shard, in_bytes, chunk, per_shard, strict=True):
                first, stop = max(a // c, position * n), min((b - 1) // c + 1, (position + 1) * n)
                box.append(slice(first - position * n, stop - position * n))
                base.append(first * c - a)
            self._shard(shard[missing:]).gather(tuple(box), tuple(base), target)

    def _shard(self, position: Index) -> "_MappedShard":
        receipt = self._receipts.get(shard_key(position))
        if receipt is None:
            raise StoreError(f"{self.path / shard_key(position)}: shard is not in the array's ledger", REPAIR)
        return _MAPS.get(self._places, receipt, self.layout)


class _MappedShard:
    """One mapped shard file, its parsed index, and which of its chunks have been verified."""

    def __init__(self, path: Path, receipt: Receipt, layout: ArrayLayout) -> None:
        self._path = path
        self._layout = layout
        try:
            with open_shard(path, receipt, layout.index_bytes) as file:
                self.file = Path(file.name)  # what is mapped: elsewhere than `path` if it is a local copy
                self._bytes = np.asarray(np.memmap(file, np.uint8, "r"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: shard cannot be read: {error}", REPAIR) from error
        if len(self._bytes) != receipt.size:
            raise StoreError(f"{path}: {len(self._bytes)} bytes, but {receipt.size} were written", REPAIR)
        tail = self._bytes[-layout.index_bytes - SEAL_BYTES :].tobytes()
        seal, index, checksum = tail[:SEAL_BYTES], tail[SEAL_BYTES:-CRC_BYTES], tail[-CRC_BYTES:]
        if crc32c_bytes(index) != checksum:
            raise StoreError(f"{path}: the shard's index does not match its checksum", REPAIR)
        if int.from_bytes(seal, "little") != receipt.seal:
            raise StoreError(f"{path}: is not the shard that was written here", REPAIR)
        self._address = self._bytes.ctypes.data
        chunk, per_shard = geometry(layout)
        self._chunk = chunk
        self._index = np.frombuffer(index, "<u8").reshape(-1, 2)
        self._starts = np.full(per_shard, -1)  # of the chunks that were verified
        self._numbers = np.arange(len(self._index)).reshape(per_shard)

    def chunk(self, position: Index) -> npt.NDArray[np.uint8]:
        """The encoded bytes of an inner chunk, without checksum, verified.

        Args:
            position: in the shard's grid of chunks.
        """
        return self._verified(int(self._numbers.reshape(self._layout.chunks_per_shard)[position]))

    def addresses(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Of items [first, stop) of an uncompressed shard's first axis, where it is cut along no other; verified."""
        step = self._layout.chunk[0]
        chunks = range(first // step, -(-stop // step))
        starts = self._starts.reshape(-1)[chunks.start : chunks.stop]
        if starts.min() < 0:
            for number in chunks:
                self._verified(number)
        chunk, place = np.divmod(np.arange(first - chunks.start * step, stop - chunks.start * step), step)
        return self._address + starts[chunk] + place * (self._layout.chunk_bytes // step)

    def gather(self, box: tuple[slice, ...], base: Index, out: npt.NDArray[np.uint8]) -> None:
        """Copy what `out` wants of a box of this shard's chunks; see `pipeline.storage.gather`."""
        from pipeline.storage.gather import gather

        if self._layout.codec != "none":
            for position, number in np.ndenumerate(self._numbers[box]):
                origin = tuple(b + p * c for b, p, c in zip(base, position, self._chunk, strict=True))
                self._gather_unpacked(self._verified(int(number)), origin, out)
        elif not gather(self._bytes, self._starts[box], self._chunk, base, out):
            for number in self._numbers[box].flat:
                self._verified(int(number))
            gather(self._bytes, self._starts[box], self._chunk, base, out)

    def _gather_unpacked(self, data: npt.NDArray[np.uint8], base: Index, out: npt.NDArray[np.uint8]) -> None:
        from pipeline.storage.gather import gather, gather_bits, room_bytes

        unpacked, block_bytes = unpack_planes(data, self._layout.chunk_bytes)
        if block_bytes:
            room = room_to_join(room_bytes(self._chunk))
            gather_bits(unpacked, block_bytes, self._chunk, base, out, room)
        else:
            gather(unpacked, _FIRST, self._chunk, base, out)

    def _verified(self, number: int) -> npt.NDArray[np.uint8]:
        offset, length = (int(value) for value in self._index[number])
        if self._starts.flat[number] < 0:
            self._verify(number, offset, length)
            self._starts.flat[number] = offset
        return self._bytes[offset : offset + length - CRC_BYTES]

    def _verify(self, number: int, offset: int, length: int) -> None:
        if offset == int(MISSING):
            raise StoreError(f"{self._path}: inner chunk {number} was never written", REPAIR)
        end = offset + length
        data = self._bytes[offset : end - CRC_BYTES]
        if end > len(self._bytes) or crc32c_bytes(data) != self._bytes[end - CRC_BYTES : end].tobytes():
            raise StoreError(f"{self._path}: inner chunk {number} does not match its checksum", REPAIR)
        found = len(data) if self._layout.codec == "none" else unpacked_bytes(data)
        if found != self._layout.chunk_bytes:
            raise StoreError(
                f"{self._path}: a chunk of {found}, not {self._layout.chunk_bytes} bytes", REPAIR
            )


def geometry(layout: ArrayLayout) -> tuple[Index, Index]:
    """Shape of a chunk, in bytes, and how many make a shard, both with `AXES` axes."""
    *sides, last = layout.chunk
    missing = (1,) * (AXES - len(layout.chunk))
    chunk = (*missing, *sides, last * np.dtype(layout.dtype).itemsize)
    return chunk, missing + layout.chunks_per_shard


def _map_shard(places: tuple[Path, ...], receipt: Receipt, layout: ArrayLayout) -> _MappedShard:
    """Map the shard that the receipt describes, from where it is.

    Raises:
        StoreError: it is nowhere, or damaged; what is wrong with the one that is in place.
    """
    problems: list[StoreError] = []
    for place in places * ATTEMPTS:
        try:
            shard = _MappedShard(place / receipt.key, receipt, layout)
        except UnreachableError:
            raise
        except StoreError as error:
            problems.append(error)
        else:
            problems.clear()  # their tracebacks would keep this frame alive, and the readers above it
            return shard
    raise problems[0]


MOST_MAPS = 1 << 14
"""A process may have 65,530 maps of all kinds (Linux, vm.max_map_count)."""


class _Maps:
    """The shards this process has mapped; the least recently used are let go before descriptors run out."""

    def __init__(self) -> None:
        self._shards: OrderedDict[tuple[Path, Receipt], _MappedShard] = OrderedDict()
        self._lock = threading.Lock()
        self._fetched = 0
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unlimited = descriptors == resource.RLIM_INFINITY
        self._limit = MOST_MAPS if unlimited else min(MOST_MAPS, max(64, descriptors // 2))

    def get(self, places: tuple[Path, ...], receipt: Receipt, layout: ArrayLayout) -> _MappedShard:
        """The map of a shard as its receipt describes it: after a rebuild, which has another seal, another map.

        Args:
            places: directories where its array may be, the first one first.
        """
        key = places[0], receipt
        with self._lock:
            if key in self._shards:
                self._shards.move_to_end(key)
                return self._shards[key]
        shard = _map_shard(places, receipt, layout)
        with self._lock:
            self._shards[key] = shard
            while len(self._shards) > self._limit:
                self._shards.popitem(last=False)
            if shard_cache().fetched != self._fetched:
                self._forget_deleted()
        return shard

    def _forget_deleted(self) -> None:
        """Unmap copies that made room for others: the disk has their room only then."""
        self._fetched = shard_cache().fetched
        for key in [key for key, shard in self._shards.items() if not shard.file.exists()]:
            del self._shards[key]

    def forget(self, root: Path) -> None:
        """Unmap everything below `root`, whose files are about to be, or have been, replaced."""
        root = root.absolute()
        with self._lock:
            for key in [key for key in self._shards if key[0].is_relative_to(root)]:
                del self._shards[key]


_MAPS = _Maps()
forget_maps = _MAPS.forget


def _layout_from(metadata: dict[str, Any]) -> ArrayLayout:
    """Read `ArrayLayout.metadata` back; anything it would not write itself is refused."""
    (sharding,) = metadata["codecs"]
    settings = sharding["configuration"]
    codecs = {codec["name"]: codec.get("configuration", {}) for codec in settings["codecs"]}
    sides = [
        *metadata["shape"],
        *metadata["chunk_grid"]["configuration"]["chunk_shape"],
        *settings["chunk_shape"],
    ]
    if not sides or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError("its sides are not whole numbers above 0")
    layout = ArrayLayout(
        shape=tuple(metadata["shape"]),
        shard=tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        chunk=tuple(settings["chunk_shape"]),
        names=tuple(metadata["dimension_names"]),
        dtype=metadata["data_type"],
        codec=codecs["blosc"]["cname"] if "blosc" in codecs else "none",
    )
    if len(layout.shape) > AXES:
        raise ValueError(f"it has more than {AXES} axes")
    if layout.metadata(metadata["attributes"]) != metadata:
        raise ValueError("its codecs or grid differ from what spk writes")
    return layout


def _require_room(layout: ArrayLayout, receipts: Collection[Receipt]) -> None:
    """Refuse shapes that the shards cannot hold, before memory is set aside for them."""
    if math.prod(layout.grid) != len(receipts):
        raise ValueError(
            f"some are not in the array's ledger: {len(receipts)} shards of a grid of {layout.grid}"
        )
    if layout.chunk_bytes > MAX_CHUNK_BYTES:
        raise ValueError(f"chunks of {layout.chunk_bytes} bytes")
    held, needed = sum(receipt.size for receipt in receipts), layout.index_bytes * len(receipts)
    if layout.codec == "none":
        needed += math.prod(layout.shape) * np.dtype(layout.dtype).itemsize
    if held < needed:
        raise ValueError(f"{held} bytes of shards do not hold an array of {layout.shape}")
