"""Vectors of bytes at any address, for compiled loops: what numba's arrays cannot say.

Nothing is checked here: whoever calls these knows that the memory is there. LLVM makes of them what the processor has.
"""

import functools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

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
