"""A frame as a page can show it: all of it at a limited size, and every pixel of the places worth a closer look."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.evaluation.judge import JudgedFrame
from model.evaluation.methods import BLURRY, RESTORED, SHARP, SPIKES

U8 = npt.NDArray[np.uint8]
Pictures = Mapping[str, U8]

LARGEST_SIDE = 800
"""Of a whole frame as it is kept, in pixels; larger ones are shrunk."""
WHOLE_PIXELS = 160_000
"""Frames of up to this many pixels are kept as they are, and need no patches."""
PATCH = 256
"""Side of a patch, in pixels."""
_STRIDE = 8
"""Pixels between the places at which a patch is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A square of a frame with all its pixels.

    Attributes:
        top, left: of the square in the frame, in pixels.
        reason: why this place.
        images: (3, h, w), by method.
        errors: (h, w), by method, as `error_map` makes them.
    """

    top: int
    left: int
    reason: str
    images: Pictures
    errors: Pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class ReducedFrame:
    """A frame with its pictures, small enough to keep some dozens of them.

    Attributes:
        height, width: of the frame itself, in pixels.
        psnrs: in dB, by method; empty without a sharp frame.
        images: (3, h, w), by method: the whole frame, shrunk where it is large.
        errors: (h, w), by method: `error_map` of the frame itself, shrunk alike; none without a sharp frame.
        patches: where the error and where the gain is largest; none if nothing was shrunk.
    """

    sequence: str
    frame: str
    index: int
    height: int
    width: int
    psnrs: Mapping[str, float]
    images: Pictures
    errors: Pictures
    patches: tuple[Patch, ...]


def reduce_frame(frame: JudgedFrame) -> ReducedFrame:
    """Keep of a frame what a page can show."""
    images = {name: image.numpy() for name, image in frame.images.items()}
    height, width = images[BLURRY].shape[-2:]
    errors = {}
    if SHARP in images:
        errors = {
            name: error_map(image, images[SHARP])
            for name, image in images.items()
            if name not in (SHARP, SPIKES)
        }
    patches = () if height * width <= WHOLE_PIXELS else tuple(_patches(images, errors))
    return ReducedFrame(
        sequence=frame.sequence,
        frame=frame.frame,
        index=frame.index,
        height=height,
        width=width,
        psnrs=frame.psnrs,
        images={name: shrink(image, LARGEST_SIDE) for name, image in images.items()},
        errors={name: shrink(image[None], LARGEST_SIDE)[0] for name, image in errors.items()},
        patches=patches,
    )


def error_map(image: U8, sharp: U8) -> U8:
    """|image - sharp| of two (3, H, W) pictures, in 8-bit levels, as the rounded mean of R, G and B: (H, W)."""
    total = np.abs(image.astype(np.int16) - sharp).sum(axis=0, dtype=np.uint16)
    return ((total + 1) // 3).astype(np.uint8)


def shrink(image: U8, side: int) -> U8:
    """A (C, H, W) picture of which no side is longer than `side`, by the mean of the pixels that fall together."""
    height, width = image.shape[-2:]
    if max(height, width) <= side:
        return image
    size = (
        max(1, round(width * side / max(height, width))),
        max(1, round(height * side / max(height, width))),
    )
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes])


def _patches(images: Pictures, errors: Pictures) -> Iterator[Patch]:
    """Where the restored frame is worst, and where it gains most; where it changes most without a sharp frame."""
    if not errors:
        change = error_map(images[RESTORED], images[BLURRY])
        yield _patch(images, errors, _largest(change), "largest change")
        return
    restored = errors[RESTORED].astype(np.int32)
    worst = _largest(restored)
    yield _patch(images, errors, worst, "largest error")
    best = _largest(errors[BLURRY] - restored)
    if max(abs(best[0] - worst[0]), abs(best[1] - worst[1])) > PATCH // 2:
        yield _patch(images, errors, best, "largest gain")


def _largest(values: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Top and left of the square with the largest sum of (H, W) values."""
    height, width = (min(PATCH, size) for size in values.shape)
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    values.cumsum(axis=0, dtype=np.int64).cumsum(axis=1, out=sums[1:, 1:])
    squares = (
        sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    )
    tried = squares[::_STRIDE, ::_STRIDE]
    row, column = np.unravel_index(int(tried.argmax()), tried.shape)
    return int(row) * _STRIDE, int(column) * _STRIDE


def _patch(images: Pictures, errors: Pictures, place: tuple[int, int], reason: str) -> Patch:
    top, left = place
    square = (..., slice(top, top + PATCH), slice(left, left + PATCH))
    return Patch(
        top=top,
        left=left,
        reason=reason,
        images={name: image[square].copy() for name, image in images.items()},
        errors={name: image[square].copy() for name, image in errors.items()},
    )
