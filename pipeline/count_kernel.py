"""The compiled loop that counts packed spikes: bits of many frames added up in bit planes, then spread into bytes.

Two *lanes* of 128 pixels are counted at a time. Adding their bits frame by frame with full adders (sum = a ^ b ^ c,
carry = majority) keeps bit i of all 256 counts in plane i, one register each: a frame costs about five instructions
for 256 pixels. When the last frame of a bin is in, the planes are spread once: neighbouring bits are merged to 2-bit,
4-bit and 8-bit counts, and the bytes put in the order of the pixels.

It is written in LLVM's vectors of 256 bits, which every processor's code generator knows how to cut to its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled import compiled

LANE = 128
"""Pixels."""
MAX_FRAMES = 255
"""In one bin: counts are bytes."""
UNROLLED = 7
"""Bins of up to so many frames have code of their own, without a loop."""
PLANES = 8
LANE_FIELDS = 7
"""A row of `lane_table`: offset of a word and how far to shift it down, the same of the next word, offset of the byte
after it, how far to shift all three down together, and where the counts go."""

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
WORDS = ir.VectorType(I64, 4)
HALF = ir.VectorType(I64, 2)

Builder = Any
Value = Any
Planes = list[Value]
LoadFrame = Callable[[Builder, Value], Value]


def _splat(byte: int) -> ir.Constant:
    return ir.Constant(WORDS, [int.from_bytes(bytes([byte]) * 8, "little")] * 4)


def _shift(bits: int) -> ir.Constant:
    return ir.Constant(WORDS, [bits] * 4)


def _full_adder(builder: Builder, a: Value, b: Value, c: Value) -> tuple[Value, Value]:
    """Sum and carry of three bits, in every bit of a register."""
    differ = builder.xor(a, b)
    return builder.xor(differ, c), builder.or_(builder.and_(a, b), builder.and_(differ, c))


def _add_up(builder: Builder, frames: Planes) -> Planes:
    """The planes of the sum of some frames."""
    planes, column = [], list(frames)
    while column:
        carries = []
        while len(column) > 2:
            total, carry = _full_adder(builder, *column[:3])
            column = [*column[3:], total]
            carries.append(carry)
        if len(column) == 2:
            carries.append(builder.and_(*column))
            column = [builder.xor(*column)]
        planes.append(column[0])
        column = carries
    return planes


def _merge(builder: Builder, low: Value, high: Value | None, bits: int, mask: int) -> tuple[Value, Value]:
    """Fields of `bits` bits and others worth more, to fields of twice the width: even ones, and odd ones.

    Args:
        mask: a byte with the even fields set.
    """
    even = builder.and_(low, _splat(mask))
    odd = builder.and_(builder.lshr(low, _shift(bits)), _splat(mask))
    if high is None:
        return even, odd
    even = builder.or_(even, builder.shl(builder.and_(high, _splat(mask)), _shift(bits)))
    return even, builder.or_(odd, builder.and_(high, _splat(mask ^ 0xFF)))


def _by_pixel(builder: Builder, planes: Planes) -> list[Value]:
    """Planes to 8 registers: byte j of register q is the count of pixel 8 * j + q."""
    fields = {(): planes}  # by the bits of q that are settled, lowest first
    for bits, mask in ((1, 0x55), (2, 0x33), (4, 0x0F)):
        wider: dict[tuple[int, ...], Planes] = {}
        for settled, parts in fields.items():
            pairs = [
                _merge(builder, low, parts[i + 1] if i + 1 < len(parts) else None, bits, mask)
                for i, low in enumerate(parts)
                if i % 2 == 0
            ]
            for odd in (0, 1):
                wider[(*settled, odd)] = [pair[odd] for pair in pairs]
        fields = wider
    return [fields[(q & 1, q >> 1 & 1, q >> 2)][0] for q in range(8)]


def _interleave(builder: Builder, a: Value, b: Value, item: ir.IntType) -> tuple[Value, Value]:
    """Items of a and b in turn: those of the first half of each 128 bits, and of the second."""
    vector = ir.VectorType(item, 256 // item.width)
    count = 128 // item.width
    a, b = builder.bitcast(a, vector), builder.bitcast(b, vector)
    halves = []
    for first in (0, count // 2):
        order = [
            start + i + from_b
            for start in (0, count)
            for i in range(first, first + count // 2)
            for from_b in (0, 2 * count)
        ]
        mask = ir.Constant(ir.VectorType(I32, len(order)), order)
        halves.append(builder.shuffle_vector(a, b, mask))
    return halves[0], halves[1]


def _in_order(builder: Builder, pixels: list[Value]) -> list[Value]:
    """Registers by pixel to 8 registers of counts in order: 16 of the first lane, and 16 of the second."""
    parts = [[value] for value in pixels]
    for item in (I8, I16, I32):
        parts = [
            [half for a, b in zip(one, two, strict=True) for half in _interleave(builder, a, b, item)]
            for one, two in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _store(builder: Builder, counts: list[Value], places: tuple[Value, Value]) -> None:
    for lane, place in enumerate(places):
        for i, value in enumerate(counts):
            order = ir.Constant(ir.VectorType(I32, 2), [2 * lane, 2 * lane + 1])
            words = builder.bitcast(value, WORDS)
            half = builder.shuffle_vector(words, words, order)
            address = builder.add(place, ir.Constant(I64, 16 * i))
            builder.store(half, builder.inttoptr(address, HALF.as_pointer()), align=1)


def _load(builder: Builder, address: Value, kind: ir.Type) -> Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _item(builder: Builder, address: Value, number: Value | int) -> Value:
    """Number `number` of the 64-bit integers at `address`."""
    number = ir.Constant(I64, number) if isinstance(number, int) else number
    return _load(builder, builder.add(address, builder.shl(number, ir.Constant(I64, 3))), I64)


def _whole_lanes(builder: Builder, lanes: tuple[Value, Value]) -> Callable[[Builder, Value], Value]:
    """How two lanes are loaded of which each is 16 bytes of a row."""
    offsets = [_item(builder, lane, 0) for lane in lanes]

    def load(builder: Builder, frame: Value) -> Value:
        first, second = (_load(builder, builder.add(frame, offset), HALF) for offset in offsets)
        return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, 4), [0, 1, 2, 3]))

    return load


def _any_lanes(builder: Builder, lanes: tuple[Value, Value]) -> LoadFrame:
    """How two lanes are loaded that begin at any bit: from two words and a byte, as `lane_table` says."""
    settings = [[_item(builder, lane, i) for i in range(6)] for lane in lanes]
    funnel = builder.module.declare_intrinsic("llvm.fshr", [I64], ir.FunctionType(I64, [I64] * 3))

    def load(builder: Builder, frame: Value) -> Value:
        words = ir.Constant(WORDS, ir.Undefined)
        for lane, (low_at, low_down, high_at, high_down, top_at, down) in enumerate(settings):
            low = builder.lshr(_load(builder, builder.add(frame, low_at), I64), low_down)
            high = builder.lshr(_load(builder, builder.add(frame, high_at), I64), high_down)
            top = builder.zext(_load(builder, builder.add(frame, top_at), I8), I64)
            for i, (word, above) in enumerate(((low, high), (high, top))):
                word = builder.call(funnel, [above, word, down])
                words = builder.insert_element(words, word, ir.Constant(I32, 2 * lane + i))
        return words

    return load


def _sum_of_many(builder: Builder, frames: Value, number: Value, load: LoadFrame) -> Planes:
    """The planes of the sum of up to 255 frames: eight at a time, then one at a time."""
    zero = ir.Constant(WORDS, [0] * 4)
    planes = [cgutils.alloca_once_value(builder, zero) for _ in range(PLANES)]

    def add_from(builder: Builder, first: int, carry: Value) -> None:
        for plane in planes[first:]:
            held = builder.load(plane)
            builder.store(builder.xor(held, carry), plane)
            carry = builder.and_(held, carry)

    eights = builder.lshr(number, ir.Constant(I64, 3))
    with cgutils.for_range(builder, eights, intp=I64) as loop:
        start = builder.shl(loop.index, ir.Constant(I64, 3))
        column = [
            load(builder, _item(builder, frames, builder.add(start, ir.Constant(I64, i)))) for i in range(8)
        ]
        for plane in planes[:3]:
            total, carries = builder.load(plane), []
            for a, b in zip(column[::2], column[1::2], strict=True):
                total, carry = _full_adder(builder, total, a, b)
                carries.append(carry)
            builder.store(total, plane)
            column = carries
        add_from(builder, 3, column[0])
    done = builder.shl(eights, ir.Constant(I64, 3))
    with cgutils.for_range(builder, builder.sub(number, done), intp=I64) as loop:
        add_from(builder, 0, load(builder, _item(builder, frames, builder.add(done, loop.index))))
    return [builder.load(plane) for plane in planes]


def _pair_counter(load_pair: Callable[[Builder, tuple[Value, Value]], LoadFrame]) -> Any:
    """The code that counts one bin in two lanes and puts 128 counts each where it is told."""

    @intrinsic  # type: ignore[misc]
    def count_pair(
        typing: Any, frames: Any, number: Any, first: Any, second: Any, to: Any, also_to: Any
    ) -> Any:
        def generate(context: Any, builder: Builder, signature: Any, args: tuple[Value, ...]) -> Value:
            frames, number, first, second, to, also_to = args
            load = load_pair(builder, (first, second))

            def finish(planes: Planes) -> None:
                _store(builder, _in_order(builder, _by_pixel(builder, planes)), (to, also_to))
                builder.branch(end)

            many, end = builder.append_basic_block("many"), builder.append_basic_block("end")
            choice = builder.switch(number, many)
            for few in range(1, UNROLLED + 1):
                block = builder.append_basic_block(f"of_{few}")
                choice.add_case(ir.Constant(I64, few), block)
                builder.position_at_end(block)
                finish(_add_up(builder, [load(builder, _item(builder, frames, j)) for j in range(few)]))
            builder.position_at_end(many)
            finish(_sum_of_many(builder, frames, number, load))
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return count_pair


_count_whole = _pair_counter(_whole_lanes)
_count_any = _pair_counter(_any_lanes)


@intrinsic  # type: ignore[misc]
def _copy(typing: Any, to: Any, source: Any, size: Any) -> Any:
    def generate(context: Any, builder: Builder, signature: Any, args: tuple[Value, ...]) -> Value:
        to, source, size = args
        pointers = [builder.inttoptr(value, I8.as_pointer()) for value in (to, source)]
        cgutils.raw_memcpy(builder, *pointers, size, 1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@compiled("Tuple((int64[:, ::1], boolean))(int64, int64, int64, int64, int64, int64, int64)")
def lane_table(
    top: int, bottom: int, left: int, right: int, row_stride: int, row_bytes: int, out_stride: int
) -> tuple[npt.NDArray[np.int64], bool]:
    """How a window of packed frames is cut into lanes, row by row; the last of a row overlaps the one before.

    Nothing outside the rows is read. What a lane has beyond a window that is narrower is not defined.

    Args:
        top, bottom, left, right: the window is rows [top, bottom) and columns [left, right), in pixels.
        row_stride: from one row of a frame to the next, in bytes; rows have `row_bytes`, 8 or more.
        out_stride: from one row of counts to the next.

    Returns:
        (L, 7) int64, and whether all lanes are 16 bytes that can be read as they are.
    """
    width = right - left
    furthest = max(width - LANE, 0)
    per_row = (max(width, LANE) + LANE - 1) // LANE
    lanes = np.empty(((bottom - top) * per_row, LANE_FIELDS), np.int64)
    whole = width >= LANE
    for number in range(len(lanes)):
        row = number // per_row
        inside = min(number % per_row * LANE, furthest)
        start = (top + row) * row_stride
        byte, down = (left + inside) // 8, (left + inside) % 8
        low, high = min(byte, row_bytes - 8), min(byte + 8, row_bytes - 8)
        lanes[number, 0] = start + low
        lanes[number, 1] = 8 * (byte - low)
        lanes[number, 2] = start + high
        lanes[number, 3] = 8 * (byte + 8 - high) if byte + 8 < row_bytes else 0
        lanes[number, 4] = start + min(byte + 16, row_bytes - 1)
        lanes[number, 5] = down
        lanes[number, 6] = row * out_stride + inside
        whole = whole and down == 0
    return lanes, whole


@compiled(
    "UniTuple(int64, 2)(int64[::1], int64[::1], int64[:, ::1], boolean, int64, int64, int64, int64, uint8[::1])"
)
def count_lanes(
    frames: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
    lanes: npt.NDArray[np.int64],
    whole: bool,
    width: int,
    out: int,
    bin_stride: int,
    end: int,
    room: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """Count the spikes of each bin in a window that is cut into lanes; empty bins are left as they are.

    Only the edges are checked here: nothing is counted unless they cut the frames into bins of 0 to 255.

    Args:
        frames: addresses of n packed frames.
        edges: (K + 1,): bin k is frames [edges[k], edges[k + 1]).
        lanes: (L, 7) of `lane_table`.
        whole: every lane is 16 bytes that can be read as they are.
        width: of the window; where it is less than a lane, a lane's counts run over into what follows in `out`, and
            are overwritten by the lanes that follow.
        out: address of the first of K x H x W bytes; counts of bin k begin `bin_stride` bytes after those of k - 1.
        end: address behind the last of them.
        room: (2 * LANE,), this thread's alone. The caller's, who keeps it alive: numba frees an array after its last
            use by name, even while its address is in use.

    Returns:
        Frames of the smallest bin, negative where the edges lie outside the frames, and of the largest.
    """
    least, most = len(frames), 0
    for k in range(len(edges) - 1):
        least, most = min(least, edges[k + 1] - edges[k]), max(most, edges[k + 1] - edges[k])
    if edges[0] < 0 or edges[-1] > len(frames):
        least = -1
    if least < 0 or most > MAX_FRAMES:
        return least, most
    places, starts = lanes.ctypes.data, frames.ctypes.data
    spare = room.ctypes.data
    for k in range(len(edges) - 1):
        number, first_frame = edges[k + 1] - edges[k], starts + 8 * edges[k]
        if number == 0:
            continue
        for i in range(0, len(lanes), 2):
            j = min(i + 1, len(lanes) - 1)
            first, second = places + 8 * LANE_FIELDS * i, places + 8 * LANE_FIELDS * j
            one, two = (out + k * bin_stride + lanes[i, 6], out + k * bin_stride + lanes[j, 6])
            if whole:
                _count_whole(first_frame, number, first, second, one, two)
                continue
            runs_out = two + LANE > end
            to, also_to = (spare, spare + LANE) if runs_out else (one, two)
            _count_any(first_frame, number, first, second, to, also_to)
            if runs_out:
                _copy(one, to, min(width, LANE))
                _copy(two, also_to, min(width, LANE))
    return least, most
