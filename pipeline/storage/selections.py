"""What an index like `[3, :, 8:16]` selects: a span on every axis."""

import operator
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]


class Selectable(ABC):
    """Values of several axes that are indexed like numpy with integers and slices of step 1, and read when they are.

    Attributes:
        shape: of all of them.
        dtype: their type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, selection: Any) -> npt.NDArray[Any]:
        """The selected values, in new memory or as a read-only view of where they are.

        Raises:
            IndexError: a position outside, a step other than 1, or what numpy calls fancy indexing.
            StoreError: a shard is missing or damaged.
        """
        spans, dropped = spans_of(selection, self.shape)
        values = self._view(spans)
        if values is None:
            values = np.empty([b - a for a, b in spans], self.dtype)
            self._fill(spans, values)
        return values.reshape([n for axis, n in enumerate(values.shape) if axis not in dropped])

    def read_into(self, selection: Any, out: npt.NDArray[Any]) -> None:
        """Copy the selected values to `out`, which has their shape and type and may be laid out in any way.

        Raises:
            ValueError: `out` has another shape or type.
            IndexError, StoreError: as for `[]`.
        """
        spans, dropped = spans_of(selection, self.shape)
        self._fill(spans, _room_for(spans, dropped, self.dtype, out))

    def _view(self, spans: list[Span]) -> npt.NDArray[Any] | None:
        """The values where they are, if they lie there as they are."""
        return None

    @abstractmethod
    def _fill(self, spans: list[Span], out: npt.NDArray[Any]) -> None:
        """Put the values of a span on every axis into `out`, which has as many axes."""


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


def _room_for(
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
