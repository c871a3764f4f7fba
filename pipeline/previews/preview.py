"""Spikes as pictures people can look at."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.dat import FRAMES_PER_BLOCK, unpack_rows

U8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WHITE_PERCENTILE = 99.5
"""This share of the pixels is at most white, so that a few hot pixels do not darken a picture."""
PAPER, INK = 255, 24
GAP, LABEL_HEIGHT, LABEL_SIZE = 8, 20, 13
TFI_REACH = 256
"""Frames that `tfi` looks at on each side: a pixel without a spike in them is black at any usual threshold."""
TFI_BLOCK = 16


class SpikeSource(Protocol):
    """A recording whose frames can be read in any order; a `SpikeStream` is one. Its `shape` is (T, H, W)."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def packed(self, start: int, stop: int) -> U8:
        """Frames [start, stop) as (n, H, ceil(W / 8)) bytes, first pixel in the lowest bit."""
        ...


def tfp(packed: U8, width: int, threshold: float = 1.0) -> Floats:
    """Light from spike counts in a window ("texture from playback", Zhu et al., ICME 2019).

    Args:
        packed: (n, H, ceil(W / 8)) uint8, LSB first: the spike frames of the window.
        width: W, in pixels.
        threshold: charge per spike, in units of the light of one frame.

    Returns:
        (H, W) light per frame: spikes / n * threshold.
    """
    if len(packed) == 0:
        raise ValueError("no spike frames in the window")
    return (unpack_rows(packed, width).mean(axis=0, dtype=np.float64) * threshold).astype(np.float32)


def mean_light(source: SpikeSource, start: int, stop: int, threshold: float = 1.0) -> Floats:
    """Light per frame in the mean of frames [start, stop), as (H, W), however many frames these are.

    Raises:
        ValueError: no frames.
    """
    _, height, width = source.shape
    if not 0 <= start < stop <= source.shape[0]:
        raise ValueError(f"no spike frames in [{start}, {stop}) of a recording of {source.shape[0]}")
    counts = np.zeros((height, width), np.int64)
    for first in range(start, stop, FRAMES_PER_BLOCK):
        block = unpack_rows(source.packed(first, min(first + FRAMES_PER_BLOCK, stop)), width)
        counts += block.sum(axis=0, dtype=np.uint8)  # a block is shorter than 256 frames
    return (counts / (stop - start) * threshold).astype(np.float32)


class IntervalLight(NamedTuple):
    """What `tfi` found.

    Attributes:
        light: (H, W) per frame.
        is_bound: (H, W), where no interval was found: the light there is an upper bound.
    """

    light: Floats
    is_bound: npt.NDArray[np.bool_]


def tfi(source: SpikeSource, index: int, threshold: float = 1.0, reach: int = TFI_REACH) -> IntervalLight:
    """Light from the interval between two spikes ("texture from inter-spike interval", Zhu et al., ICME 2019).

    The interval of a pixel runs from its last spike in frame `index` or before to its first one after that; in it the
    charge of one spike was collected, so the light is threshold / interval.

    A pixel that does not fire in the `reach` frames on a side, or before the recording's end, has no interval. It is
    given the upper bound that the missing spike leaves: as if it came just before the first frame that was looked at,
    or just after the last.
    """
    num_frames, height, width = source.shape
    if not 0 <= index < num_frames:
        raise ValueError(f"frame {index} is not one of {num_frames}")
    low, high = max(0, index + 1 - reach), min(num_frames, index + 1 + reach)
    following = _first_spike(_forwards(source, index + 1, high), (height, width), absent=high)
    last = _first_spike(_backwards(source, low, index + 1), (height, width), absent=low - 1)
    is_bound = (following == high) | (last == low - 1)
    return IntervalLight((threshold / (following - last)).astype(np.float32), is_bound)


def _first_spike(
    frames: Iterable[tuple[int, U8]], shape: tuple[int, int], absent: int
) -> npt.NDArray[np.int64]:
    """The index of the first of some (index, frame) in which each pixel fired; `absent` where it did in none."""
    found, is_open = np.full(shape, absent, np.int64), np.ones(shape, np.bool_)
    for index, frame in frames:
        new = frame.view(np.bool_) & is_open
        np.copyto(found, index, where=new)
        is_open ^= new
        if not is_open.any():
            break
    return found


def _forwards(source: SpikeSource, start: int, stop: int) -> Iterator[tuple[int, U8]]:
    """Frames [start, stop), with their indices; few are read before they are needed."""
    for first in range(start, stop, TFI_BLOCK):
        last = min(first + TFI_BLOCK, stop)
        yield from zip(
            range(first, last), unpack_rows(source.packed(first, last), source.shape[2]), strict=True
        )


def _backwards(source: SpikeSource, start: int, stop: int) -> Iterator[tuple[int, U8]]:
    """Frames [start, stop), the last one first."""
    for last in range(stop, start, -TFI_BLOCK):
        first = max(last - TFI_BLOCK, start)
        yield from reversed([*_forwards(source, first, last)])


def voxel_preview(counts: U8, frames_per_bin: Sequence[int] | None = None, around: float | None = None) -> U8:
    """The spike rate of voxel bins as a grey picture.

    Args:
        counts: (K, H, W) spikes per bin.
        frames_per_bin: K numbers of spike frames; equal without.
        around: an instant in bins from the start (K / 2 is the middle): only a sixth of the bins, around it, is
            shown; all of them without.

    Returns:
        (H, W) uint8.
    """
    bins = len(counts)
    start, stop = 0, bins
    if around is not None:
        length = max(1, math.ceil(bins / 6))
        start = min(max(round(around - length / 2), 0), bins - length)
        stop = start + length
    frames = _num_frames(frames_per_bin, start, stop)
    return to_grey8(counts[start:stop].sum(axis=0, dtype=np.float64) / max(frames, 1))


def _num_frames(frames_per_bin: Sequence[int] | None, start: int, stop: int) -> int:
    """Spike frames in bins [start, stop); bins where their lengths are not known."""
    return stop - start if frames_per_bin is None else int(sum(frames_per_bin[start:stop]))


def to_grey8(image: npt.NDArray[np.floating], white: float | None = None) -> U8:
    """Light to 8-bit grey: 0 is black, and `white` (the 99.5th percentile without) and above is white."""
    if white is None:
        white = float(np.percentile(image, WHITE_PERCENTILE)) if image.size else 0.0
        white = white or float(image.max(initial=0.0))
    if not white > 0:
        return np.zeros(image.shape, np.uint8)
    return np.round(np.clip(image / white, 0, 1) * 255).astype(np.uint8)


def enlarge(image: U8, scale: int) -> U8:
    """Repeat every pixel of (..., H, W) `scale` times along both sides."""
    return image.repeat(scale, axis=-2).repeat(scale, axis=-1)


def to_rgb(image: U8) -> U8:
    """(H, W) grey or (3, H, W) colour as (3, H, W)."""
    return np.broadcast_to(image, (3, *image.shape)) if image.ndim == 2 else image


def contact_sheet(images: Sequence[U8], labels: Sequence[str], columns: int | None = None) -> U8:
    """Lay pictures out in a grid, each with its label above.

    Args:
        images: uint8 (H, W) or (3, H, W), of any sizes; a cell is as large as the largest.
        labels: one a picture; cut where it is wider than its cell.
        columns: pictures in a row; all without.

    Returns:
        uint8 (3, H, W).

    Raises:
        ValueError: no pictures, or not one label a picture.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} pictures and {len(labels)} labels")
    columns = min(columns or len(images), len(images))
    cell_height = max(image.shape[-2] for image in images) + LABEL_HEIGHT + GAP
    cell_width = max(image.shape[-1] for image in images) + GAP
    rows = math.ceil(len(images) / columns)
    sheet = np.full((3, rows * cell_height + GAP, columns * cell_width + GAP), PAPER, np.uint8)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        y, x = GAP + i // columns * cell_height, GAP + i % columns * cell_width
        strip = text_strip(label, cell_width - GAP, LABEL_HEIGHT)
        sheet[:, y : y + LABEL_HEIGHT, x : x + cell_width - GAP] = strip
        height, width = image.shape[-2:]
        sheet[:, y + LABEL_HEIGHT : y + LABEL_HEIGHT + height, x : x + width] = to_rgb(image)
    return sheet


def text_strip(text: str, width: int, height: int) -> U8:
    """Dark text on white, (height, width); what does not fit is cut."""
    strip = Image.new("L", (width, height), PAPER)
    font = ImageFont.load_default(LABEL_SIZE)
    ImageDraw.Draw(strip).text((0, (height - LABEL_SIZE) // 2 - 2), text, fill=INK, font=font)
    return np.array(strip)
