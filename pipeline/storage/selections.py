"""What an index like `[3, :, 8:16]` selects: a span on every axis."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]


def spans_of(selection: Any, shape: tuple[int, ...]) -> tuple[list[Span], set[int]]:
    """The [start, stop) that is selected on every axis of `shape`, and the axes that a lone index takes away.

    Raises:
        IndexError: a position outside the array, a step other than 1, or what numpy calls fancy indexing.
    """
    selection = selection if isinstance(selection, tuple) else (selection,)
    if len(selection) > len(shape):
        raise IndexError(f"{len(selection)} indices for an array of {len(shape)} axes")
    selection = selection + (slice(None),) * (len(shape) - len(selection))
    spans: list[Span] = []
    dropped: set[int] = set()
    for axis, (part, size) in enumerate(zip(selection, shape, strict=True)):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step != 1:
                raise IndexError(f"step {step} on axis {axis}: only whole spans can be read")
            spans.append((start, max(start, stop)))
            continue
        position = _position(part)
        if not -size <= position < size:
            raise IndexError(f"{position} on axis {axis} of size {size}")
        spans.append((position % size, position % size + 1))
        dropped.add(axis)
    return spans, dropped


def room_for(
    spans: list[Span], dropped: set[int], dtype: np.dtype[Any], out: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """`out`, which is to take what is selected, with an axis of length 1 for each that a lone index took away.

    Raises:
        ValueError: it has another shape or type than what is selected, or cannot be written.
    """
    wanted = tuple(b - a for axis, (a, b) in enumerate(spans) if axis not in dropped)
    if out.shape != wanted or out.dtype != dtype or not out.flags.writeable:
        raise ValueError(f"{out.dtype} {out.shape}, expected {dtype} {wanted} that can be written")
    return out[tuple(None if axis in dropped else slice(None) for axis in range(len(spans)))]


def _position(part: Any) -> int:
    if isinstance(part, bool | np.bool_):
        raise IndexError(f"index {part}: expected a whole number or a slice")
    try:
        return operator.index(part)
    except TypeError:
        raise IndexError(f"index {part!r}: expected a whole number or a slice") from None
