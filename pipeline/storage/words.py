"""Machine words at any address, for compiled loops: what numba's arrays cannot say.

Nothing is checked here: whoever calls these knows that the memory is there.
"""

import functools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTE, _WORD, _LANES = ir.IntType(8), ir.IntType(64), 32
_COMMON_BITS = 2


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """The 8 bytes at `address`, the first one lowest."""
    return types.uint64(types.int64), lambda context, builder, signature, args: _load(builder, args[0], _WORD)


@intrinsic
def load_byte(typing: Any, address: Any) -> Any:
    return types.uint8(types.int64), lambda context, builder, signature, args: _load(builder, args[0], _BYTE)


@intrinsic
def store(typing: Any, address: Any, word: Any) -> Any:
    """Put 8 bytes at `address`."""
    return types.void(types.int64, types.uint64), _store


@intrinsic
def store_byte(typing: Any, address: Any, byte: Any) -> Any:
    return types.void(types.int64, types.uint8), _store


@intrinsic
def reverse(typing: Any, word: Any) -> Any:
    """The bytes of a word in the other order."""
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.bswap(args[0])


@intrinsic
def move(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes that do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(address, _BYTE.as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def join_bits(typing: Any, target: Any, planes: Any, plane_bytes: Any) -> Any:
    """Put 32 bytes at `target` whose bits p are the 32 bits at `planes` + p * `plane_bytes`, lowest first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, planes, plane_bytes = args
        lanes = ir.VectorType(_BYTE, _LANES)
        pointer = builder.inttoptr(target, lanes.as_pointer())
        bits = [
            _load(builder, builder.add(planes, builder.mul(plane_bytes, _WORD(p))), ir.IntType(_LANES))
            for p in range(8)
        ]
        high = functools.reduce(builder.or_, bits[_COMMON_BITS:])
        with builder.if_else(builder.icmp_unsigned("==", high, high.type(0))) as (small, large):
            with small:  # nearly all counts
                builder.store(_weighted(builder, bits[:_COMMON_BITS]), pointer, align=1)
            with large:
                builder.store(_weighted(builder, bits), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _weighted(builder: Any, bits: list[Any]) -> Any:
    """The bytes that have bit p of lane i where bit i of `bits[p]` is set."""
    lanes = ir.VectorType(_BYTE, _LANES)
    value = ir.Constant(lanes, [0] * _LANES)
    for p, of_lanes in enumerate(bits):
        chosen = builder.bitcast(of_lanes, ir.VectorType(ir.IntType(1), _LANES))
        weight, nothing = (ir.Constant(lanes, [bit] * _LANES) for bit in (1 << p, 0))
        value = builder.or_(value, builder.select(chosen, weight, nothing))
    return value


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    address, value = args
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)
    return context.get_dummy_value()
