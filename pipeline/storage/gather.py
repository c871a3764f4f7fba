"""Compiled copying: the parts of inner chunks that a selection asks for, straight to where they belong.

Chunks and destination have four axes, of bytes; the last two are rows and columns. A selection touches some box of an
array's chunks. `base` is where the first value of the box's first chunk would lie in the destination: at or before its
start on every axis. The destination may run backwards on any axis, or have rows and columns exchanged: that is how a
clip is turned while it is read.

Importing this takes as long as importing numba (0.3 s): import it where pictures are read, not at the top.
"""

import functools
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled import compiled

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Four = tuple[int, int, int, int]

LANES = 32
"""Bytes that `join_bits` puts together at a time."""
SIDE = 16
"""Of the squares that `transpose` turns, and the bytes that `reverse` reverses."""
_COMMON_BITS = 2
"""Most counts are below 4: bytes without higher bits are put together by a shorter way."""
_BYTE, _ADDRESS = ir.IntType(8), ir.IntType(64)


@intrinsic
def load_byte(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args[0], _BYTE)

    return types.uint8(types.int64), generate


@intrinsic
def store_byte(typing: Any, address: Any, byte: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), generate


@intrinsic
def move(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes to where they do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(address, _BYTE.as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def reverse(typing: Any, target: Any, source: Any) -> Any:
    """Copy `SIDE` bytes in the other order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _load(builder, args[1], ir.VectorType(_BYTE, SIDE))
        _store(builder, _chosen(builder, values, values, range(SIDE)[::-1]), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def transpose(typing: Any, target: Any, target_step: Any, source: Any, source_step: Any) -> Any:
    """Copy `SIDE` rows of `SIDE` bytes, `source_step` apart, as columns: rows at the target are `target_step` apart.

    To interleave the first half of the rows with the second is to turn the bits of a byte's position (row, column)
    by one place; after four times rows and columns have changed places.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, target_step, source, source_step = args
        kind = ir.VectorType(_BYTE, SIDE)
        rows = [_load(builder, _moved(builder, source, source_step, r), kind) for r in range(SIDE)]
        pairs = [(i, i + SIDE) for i in range(SIDE)]
        low, high = ([n for pair in half for n in pair] for half in (pairs[: SIDE // 2], pairs[SIDE // 2 :]))
        for _ in range(SIDE.bit_length() - 1):
            halves = zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True)
            rows = [_chosen(builder, a, b, order) for a, b in halves for order in (low, high)]
        for r, row in enumerate(rows):
            _store(builder, row, _moved(builder, target, target_step, r))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def join_bits(typing: Any, target: Any, planes: Any, plane_bytes: Any) -> Any:
    """Put `LANES` bytes at `target` whose bits p are the bits at `planes` + p * `plane_bytes`, lowest first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, planes, plane_bytes = args
        kind = ir.IntType(LANES)
        bits = [_load(builder, _moved(builder, planes, plane_bytes, p), kind) for p in range(8)]
        high = functools.reduce(builder.or_, bits[_COMMON_BITS:])
        with builder.if_else(builder.icmp_unsigned("==", high, kind(0))) as (small, large):
            with small:
                _store(builder, _weighted(builder, bits[:_COMMON_BITS]), target)
            with large:
                _store(builder, _weighted(builder, bits), target)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _weighted(builder: Any, bits: list[Any]) -> Any:
    """The bytes that have bit p of lane i where bit i of `bits[p]` is set."""
    kind = ir.VectorType(_BYTE, LANES)
    value = ir.Constant(kind, [0] * LANES)
    for p, of_lanes in enumerate(bits):
        set_there = builder.bitcast(of_lanes, ir.VectorType(ir.IntType(1), LANES))
        weight, nothing = (ir.Constant(kind, [bit] * LANES) for bit in (1 << p, 0))
        value = builder.or_(value, builder.select(set_there, weight, nothing))
    return value


def _chosen(builder: Any, a: Any, b: Any, order: Any) -> Any:
    """The bytes of `a` and `b`, numbered through, that `order` names."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(32), SIDE), list(order))
    return builder.shuffle_vector(a, b, numbers)


def _moved(builder: Any, address: Any, step: Any, times: int) -> Any:
    return builder.add(address, builder.mul(step, _ADDRESS(times)))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


_inner = numba.njit(nogil=True)
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_STARTS = types.Array(types.int64, 4, "A", readonly=True)
_FOUR = types.UniTuple(types.int64, 4)
_OUT = types.Array(types.uint8, 4, "A")
_ROOM = types.Array(types.uint8, 1, "C")


@_inner
def _put_chunk(chunk_address: int, chunk: Four, base: Four, out: U8) -> None:
    (a, a_stop), (b, b_stop), (c, c_stop), (d, d_stop) = _overlaps(chunk, base, out)
    for x in range(a, a_stop):
        for y in range(b, b_stop):
            row = ((x - base[0]) * chunk[1] + y - base[1]) * chunk[2] + c - base[2]
            source = chunk_address + row * chunk[3] + d - base[3]
            target = _address(out, x, y, c, d)
            _put(source, chunk[3], c_stop - c, d_stop - d, target, out.strides[2], out.strides[3])


@_inner
def _overlaps(chunk: Four, base: Four, out: U8) -> tuple[tuple[int, int], ...]:
    """The part of `out` that a chunk at `base` covers: a span on every axis."""
    return (
        (max(base[0], 0), min(base[0] + chunk[0], out.shape[0])),
        (max(base[1], 0), min(base[1] + chunk[1], out.shape[1])),
        (max(base[2], 0), min(base[2] + chunk[2], out.shape[2])),
        (max(base[3], 0), min(base[3] + chunk[3], out.shape[3])),
    )


@_inner
def _address(out: U8, a: int, b: int, c: int, d: int) -> int:
    steps = a * out.strides[0] + b * out.strides[1] + c * out.strides[2] + d * out.strides[3]
    return out.ctypes.data + steps


@_inner
def _put(source: int, pitch: int, rows: int, columns: int, target: int, row_step: int, step: int) -> None:
    """Copy rows of bytes, `pitch` apart, to where the next row is `row_step` and the next column `step` away."""
    if step == 1:
        for r in range(rows):
            move(target + r * row_step, source + r * pitch, columns)
    elif step == -1:
        for r in range(rows):
            _put_backwards(source + r * pitch, columns, target + r * row_step)
    elif abs(row_step) == 1:
        _put_turned(source, pitch, rows, columns, target, row_step, step)
    else:
        _put_bytes(source, pitch, rows, columns, target, row_step, step)


@_inner
def _put_backwards(source: int, columns: int, target: int) -> None:
    if columns < SIDE:
        for x in range(columns):
            store_byte(target - x, load_byte(source + x))
        return
    for x in range(0, columns, SIDE):
        first = min(x, columns - SIDE)  # the last ones overlap those before
        reverse(target - first - (SIDE - 1), source + first)


@_inner
def _put_turned(
    source: int, pitch: int, rows: int, columns: int, target: int, row_step: int, step: int
) -> None:
    """Rows become columns, `SIDE` x `SIDE` bytes at a time."""
    if min(rows, columns) < SIDE:
        _put_bytes(source, pitch, rows, columns, target, row_step, step)
        return
    for r in range(0, rows, SIDE):
        row = min(r, rows - SIDE)
        for x in range(0, columns, SIDE):
            column = min(x, columns - SIDE)
            corner = source + row * pitch + column
            turned = target + row * row_step + column * step
            if row_step == 1:
                transpose(turned, step, corner, pitch)
            else:
                transpose(turned - (SIDE - 1), step, corner + (SIDE - 1) * pitch, -pitch)


@_inner
def _put_bytes(
    source: int, pitch: int, rows: int, columns: int, target: int, row_step: int, step: int
) -> None:
    for r in range(rows):
        for x in range(columns):
            store_byte(target + r * row_step + x * step, load_byte(source + r * pitch + x))


@_inner
def _join(planes: int, size: int, block: int, block_bytes: int, first: int, stop: int, target: int) -> None:
    """Put together bytes [first, stop) of a chunk of `size`, some bytes of the word before, and up to `LANES` after.

    Args:
        block: where the block begins that has byte `first`.
    """
    first = first // 8 * 8
    while first < stop:
        block_stop = min(block + block_bytes, size)
        plane_bytes = (block_stop - block) // 8
        source = planes + block + (first - block) // 8
        for byte in range(0, min(stop, block_stop) - first, LANES):
            join_bits(target + byte, source + byte // 8, plane_bytes)
        target += block_stop - first
        first = block = block_stop


@compiled(types.boolean(_BYTES, _STARTS, _FOUR, _FOUR, _OUT))
def gather(source: U8, starts: I64, chunk: Four, base: Four, out: U8) -> bool:
    """Copy from uncompressed chunks. False if one of them may not be read: nothing is copied then.

    Args:
        source: (n,) bytes, contiguous.
        starts: of a box of chunks, (a, b, c, d): the first byte of each in `source`, below 0 if it may not be read.
        chunk: shape of a chunk.
    """
    for start in starts.flat:
        if start < 0:
            return False
    for i in range(starts.shape[0]):
        for j in range(starts.shape[1]):
            for k in range(starts.shape[2]):
                for m in range(starts.shape[3]):
                    corner = (
                        base[0] + i * chunk[0],
                        base[1] + j * chunk[1],
                        base[2] + k * chunk[2],
                        base[3] + m * chunk[3],
                    )
                    _put_chunk(source.ctypes.data + starts[i, j, k, m], chunk, corner, out)
    return True


def room_bytes(chunk: Four) -> int:
    """How much room `gather_bits` needs for chunks of this shape."""
    return chunk[2] * ((chunk[3] + 7) // LANES * LANES + 2 * LANES)


@compiled(types.void(_BYTES, types.int64, _FOUR, _FOUR, _OUT, _ROOM))
def gather_bits(planes: U8, block_bytes: int, chunk: Four, base: Four, out: U8, room: U8) -> None:
    """Copy from one chunk whose bits are still shuffled: only the bytes that are asked for are put together again.

    Every block of such a chunk is eight planes, of which plane p has bit p of the block's bytes, the first byte in
    the lowest bit (https://github.com/kiyo-masui/bitshuffle, elements of one byte).

    Args:
        planes: the chunk, contiguous, and at least `LANES` bytes more.
        block_bytes: size of a block, a multiple of 8; the last one may be smaller.
        room: `room_bytes` or more, this thread's alone. The caller's, who keeps it alive: numba frees an array after
            its last use by name, even while its address is in use.
    """
    (a, a_stop), (b, b_stop), (c, c_stop), (d, d_stop) = _overlaps(chunk, base, out)
    size = chunk[0] * chunk[1] * chunk[2] * chunk[3]
    columns = d_stop - d
    pitch = (columns + 7) // LANES * LANES + 2 * LANES
    address, bits = room.ctypes.data, planes.ctypes.data
    aligned = chunk[3] % 8 == 0
    block = 0
    for x in range(a, a_stop):
        for y in range(b, b_stop):
            first = (((x - base[0]) * chunk[1] + y - base[1]) * chunk[2] - base[2]) * chunk[3] + d - base[3]
            for r in range(c, c_stop):
                start = first + r * chunk[3]
                while start >= block + block_bytes:
                    block += block_bytes
                _join(bits, size, block, block_bytes, start, start + columns, address + (r - c) * pitch)
                if not aligned:  # this row begins at another bit than the next
                    source = address + (r - c) * pitch + start % 8
                    _put(source, pitch, 1, columns, _address(out, x, y, r, d), out.strides[2], out.strides[3])
            if aligned:
                source = address + (first + c * chunk[3]) % 8
                target = _address(out, x, y, c, d)
                _put(source, pitch, c_stop - c, columns, target, out.strides[2], out.strides[3])
