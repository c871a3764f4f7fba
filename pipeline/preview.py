"""Spikes as pictures people can look at."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.dat import unpack_rows

U8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WHITE_PERCENTILE = 99.5
"""This share of the pixels is at most white, so that a few hot pixels do not darken a picture."""
PAPER, INK = 255, 24
GAP, LABEL_HEIGHT, LABEL_SIZE = 8, 20, 13


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


def tfi(spikes: U8, index: int, threshold: float = 1.0) -> Floats:
    """Light from the interval between two spikes ("texture from inter-spike interval", Zhu et al., ICME 2019).

    Args:
        spikes: (T, H, W) zeros and ones.
        index: the frame to picture: the interval runs from the last spike before it to the first one from it on.
        threshold: charge per spike, in units of the light of one frame.

    Returns:
        (H, W) light per frame: threshold / interval; 0 where the frame lies in no interval.
    """
    if not 0 <= index < len(spikes):
        raise ValueError(f"frame {index} is not one of {len(spikes)}")
    before, after = spikes[:index][::-1], spikes[index:]
    if index == 0:
        return np.zeros(spikes.shape[1:], np.float32)
    interval = after.argmax(axis=0) + before.argmax(axis=0) + 1
    inside = after.any(axis=0) & before.any(axis=0)
    return np.where(inside, threshold / interval, 0).astype(np.float32)


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
