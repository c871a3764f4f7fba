"""Looking at a texture from a moving point: sub-pixel shifts, rotation and zoom, many instants at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """Where a picture's pivot lies on a texture at n instants, all (n,).

    Attributes:
        x, y: texel the pivot looks at; texel (i, j) is at y = i, x = j.
        angle: of the picture's x axis on the texture, in radians.
        step: texels from one pixel of the picture to the next.
    """

    x: Doubles
    y: Doubles
    angle: Doubles
    step: Doubles


def look(
    texture: Floats, view: View, shape: tuple[int, int], pivot: tuple[Doubles, Doubles] | None = None
) -> Floats:
    """What a picture of `shape` (h, w) sees of a periodic texture (planes, H, W): (planes, n, h, w).

    Args:
        pivot: the (x, y) pixel, each (n,), that lies at the view's x, y; the picture's middle unless given.
    """
    height, width = shape
    middle = (np.full(len(view.x), (width - 1) / 2), np.full(len(view.x), (height - 1) / 2))
    pivot_x, pivot_y = pivot or middle
    dx = np.arange(width) - pivot_x[:, None]
    dy = np.arange(height) - pivot_y[:, None]
    cos, sin = (view.step * np.cos(view.angle))[:, None], (view.step * np.sin(view.angle))[:, None]
    # The period comes off before float32 does, so that distant positions keep their fractions.
    column = _outer_sum((view.x[:, None] + cos * dx) % texture.shape[2], -sin * dy)
    row = _outer_sum((view.y[:, None] + sin * dx) % texture.shape[1], cos * dy)
    return sample(texture, column, row)


def sample(texture: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear values of a periodic texture (planes, H, W) at texel positions `x`, `y` (any shape s): (planes, *s)."""
    height, width = texture.shape[1:]
    left, top = np.floor(x), np.floor(y)
    right_share, low_share = x - left, y - top
    column, row = left.astype(np.int32), top.astype(np.int32)
    upper, lower = _wrap(row, height) * width, _wrap(row + 1, height) * width
    left_column, right_column = _wrap(column, width), _wrap(column + 1, width)
    corners = (upper + left_column, upper + right_column, lower + left_column, lower + right_column)
    values = np.empty((len(texture), *x.shape), np.float32)
    for plane, out in zip(texture.reshape(len(texture), -1), values, strict=True):
        a, b, c, d = (plane.take(corner, mode="wrap") for corner in corners)
        above = a + (b - a) * right_share
        below = c + (d - c) * right_share
        np.add(above, (below - above) * low_share, out=out)
    return values


def _wrap(index: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    """index modulo size; by masking, which is much faster, where the size is a power of two."""
    return index % size if size & (size - 1) else index & (size - 1)


def _outer_sum(along: Doubles, down: Doubles) -> Floats:
    """along (n, w) and down (n, h) to their sums (n, h, w)."""
    return down.astype(np.float32)[:, :, None] + along.astype(np.float32)[:, None, :]
