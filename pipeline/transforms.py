"""Where a training sample is cut from its clip and how it is turned: the same for frames and voxel grids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """One way to cut and turn a clip.

    Attributes:
        row, column: corner of the crop in spike pixels; RGB crops start at `scale` times that.
        transpose, flip_rows, flip_columns: together the eight symmetries of a square.
        reverse: play the clip, and the bins inside each exposure, backwards.
    """

    row: int
    column: int
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    reverse: bool = False

    def window(self, side: int, scale: int) -> tuple[slice, slice]:
        """Rows and columns of a square crop of `side` pixels, of an image `scale` times as large as the spikes."""
        row, column = self.row * scale, self.column * scale
        return slice(row, row + side), slice(column, column + side)

    def unturned(self, turned: Values) -> Values:
        """A view of (T, C, H, W) memory in which lies unturned what is turned in the memory itself.

        To write a crop there is to apply symmetry and time reversal to it, without another copy. In the order in
        which a crop is turned, they are: time reversal, exchange of rows and columns, flip of rows, flip of columns.
        """
        view = turned[..., ::-1] if self.flip_columns else turned
        view = view[:, :, ::-1] if self.flip_rows else view
        view = view.swapaxes(2, 3) if self.transpose else view
        return view[::-1] if self.reverse else view

    def unturned_voxels(self, turned: Values) -> Values:
        """The same for (T, K, H, W) counts, whose bins are time as well."""
        view = self.unturned(turned)
        return view[:, ::-1] if self.reverse else view


def draw_augmentation(
    rng: np.random.Generator, room: tuple[int, int], *, flips: bool, rotations: bool, reversal: bool
) -> Augmentation:
    """Draw a crop corner, and of the symmetries those that are wanted.

    Args:
        room: how far the corner can move down and right, in spike pixels.
    """
    row, column = (int(rng.integers(0, space + 1)) for space in room)
    coins = rng.random(4) < 0.5
    return Augmentation(
        row=row,
        column=column,
        transpose=bool(rotations and coins[0]),
        flip_rows=bool(flips and coins[1]),
        flip_columns=bool(flips and coins[2]),
        reverse=bool(reversal and coins[3]),
    )
