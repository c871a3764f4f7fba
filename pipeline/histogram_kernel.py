"""The compiled loop that tells how often each byte occurs: by comparing, 32 at a time, where there are few values.

A comparison gives -1 where it holds, so subtracting it counts in every byte of a register; 255 registers of bytes fit
before those counters must be emptied.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled import compiled

WIDTH = 32
AT_ONCE = 4
"""Values that are compared with in one pass over a block."""
FEW = 64
"""Up to so many values, comparing with each is faster than looking up counters byte by byte."""
BLOCK = 255 * WIDTH

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
BYTES = ir.VectorType(I8, WIDTH)


@intrinsic  # type: ignore[misc]
def _count_equal(typing: Any, data: Any, vectors: Any, first: Any, counts: Any) -> Any:
    """How often values first, first + 1, ... occur in up to 255 vectors: added to the int64 numbers at `counts`."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple[Any, ...]) -> Any:
        data, vectors, first, counts = args
        zero = ir.Constant(BYTES, [0] * WIDTH)
        counters = [cgutils.alloca_once_value(builder, zero) for _ in range(AT_ONCE)]
        everywhere = ir.Constant(ir.VectorType(I32, WIDTH), [0] * WIDTH)
        values = []
        for i in range(AT_ONCE):
            value = builder.trunc(builder.add(first, ir.Constant(I64, i)), I8)
            single = builder.insert_element(zero, value, ir.Constant(I32, 0))
            values.append(builder.shuffle_vector(single, zero, everywhere))
        with cgutils.for_range(builder, vectors, intp=I64) as loop:
            address = builder.add(data, builder.mul(loop.index, ir.Constant(I64, WIDTH)))
            found = builder.load(builder.inttoptr(address, BYTES.as_pointer()), align=1)
            for counter, value in zip(counters, values, strict=True):
                equal = builder.sext(builder.icmp_unsigned("==", found, value), BYTES)
                builder.store(builder.sub(builder.load(counter), equal), counter)
        wide = ir.VectorType(I16, WIDTH)
        kind = ir.FunctionType(I16, [wide])
        name = f"llvm.vector.reduce.add.v{WIDTH}i16"
        total_of = cgutils.get_or_insert_function(builder.module, kind, name)
        for i, counter in enumerate(counters):
            total = builder.call(total_of, [builder.zext(builder.load(counter), wide)])
            place = builder.add(counts, ir.Constant(I64, 8 * i))
            pointer = builder.inttoptr(place, I64.as_pointer())
            builder.store(builder.add(builder.load(pointer), builder.zext(total, I64)), pointer)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@compiled(types.void(types.Array(types.uint8, 1, "C", readonly=True), types.int64, types.int64[::1]))
def count_values(data: npt.NDArray[np.uint8], most: int, counts: npt.NDArray[np.int64]) -> None:
    """Add to `counts` (256 + AT_ONCE or more,) how often each value occurs in `data`, none of which is above `most`."""
    if most > FEW:
        tables = np.zeros((4, 256), np.uint32)  # equal neighbours do not wait for each other
        quarter = len(data) // 4
        for i in range(quarter):
            for table in range(4):
                tables[table, data[table * quarter + i]] += 1
        for i in range(4 * quarter, len(data)):
            tables[0, data[i]] += 1
        for value in range(256):
            for table in range(4):
                counts[value] += tables[table, value]
        return
    before = counts[1 : most + 1].sum()
    whole = len(data) // WIDTH
    for start in range(0, whole, 255):
        for first in range(1, most + 1, AT_ONCE):
            place = counts.ctypes.data + 8 * first
            _count_equal(data.ctypes.data + WIDTH * start, min(255, whole - start), first, place)
    for i in range(WIDTH * whole, len(data)):
        counts[data[i]] += data[i] != 0
    counts[0] += len(data) - (counts[1 : most + 1].sum() - before)
