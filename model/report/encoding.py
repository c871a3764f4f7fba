"""Pictures as `data:` addresses, at the best quality at which those of all frames fit on the page."""

import base64
import bisect
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from model.evaluation.pictures import KINDS
from model.evaluation.reduced import LARGEST_SIDE, PATCH, WHOLE_PIXELS, Patch, ReducedFrame, shrink

U8 = npt.NDArray[np.uint8]
Reasons = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """How good pictures are.

    Attributes:
        side: longest of a whole frame, in pixels.
        quality: of whole frames as JPEG.
        lossless: frames of up to this many pixels keep them all.
        patch: side of a patch, in pixels; patches keep every pixel.
    """

    side: int
    quality: int
    lossless: int
    patch: int


LEVELS = (
    Level(side=LARGEST_SIDE, quality=92, lossless=WHOLE_PIXELS, patch=PATCH),
    Level(side=LARGEST_SIDE, quality=87, lossless=WHOLE_PIXELS, patch=208),
    Level(side=LARGEST_SIDE, quality=83, lossless=120_000, patch=160),
    Level(side=720, quality=80, lossless=80_000, patch=128),
    Level(side=640, quality=76, lossless=40_000, patch=112),
    Level(side=512, quality=72, lossless=20_000, patch=96),
    Level(side=400, quality=68, lossless=0, patch=80),
)
_ERROR_SIDE = 2 / 3
"""Of a whole frame's error map, as a part of the picture's side."""
_SAMPLE = 4
"""Frames from which the size of all is estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Frames as the page's script reads them.

    Attributes:
        frames: (the frame, its JSON text).
        dropped: frames that did not fit.
        lossy_side: longest side of whole frames where some are JPEG, else None: all keep every pixel.
    """

    frames: tuple[tuple[ReducedFrame, str], ...]
    dropped: int
    lossy_side: int | None


def encode_frames(pictured: Sequence[tuple[ReducedFrame, Reasons]], budget: int) -> Encoded:
    """Encode frames at the best level at which all fit into `budget` bytes of JSON, or leave out what matters least.

    Args:
        pictured: as `Album.pictured` gives them.
    """
    level = _level(pictured, budget)
    texts: dict[int, str] = {}
    by_importance = sorted(range(len(pictured)), key=lambda i: (KINDS.index(pictured[i][1][0]), i))
    for i in by_importance:
        text = json.dumps(encode_frame(*pictured[i], level))
        if len(text) <= budget:
            budget -= len(text)
            texts[i] = text
    kept = tuple((pictured[i][0], texts[i]) for i in sorted(texts))
    return Encoded(
        frames=kept,
        dropped=len(pictured) - len(kept),
        lossy_side=None if all(_is_exact(frame, level) for frame, _ in kept) else level.side,
    )


def _level(pictured: Sequence[tuple[ReducedFrame, Reasons]], budget: int) -> Level:
    """The best level at which all frames fit, judging by some of them; the lowest if at none."""
    sample = pictured[:: -(-len(pictured) // _SAMPLE) or 1]

    def fits(level: Level) -> bool:
        size = sum(len(json.dumps(encode_frame(*one, level))) for one in sample)
        return size * len(pictured) <= budget * len(sample)

    # A lower level is never larger, so the first that fits is found by halving.
    return LEVELS[min(bisect.bisect_left(LEVELS, True, key=fits), len(LEVELS) - 1)]


def encode_frame(frame: ReducedFrame, reasons: Reasons, level: Level) -> dict[str, Any]:
    """A frame with its pictures as plain values."""
    exact = _is_exact(frame, level)
    if exact:
        images, errors = _lossless(frame.images), _lossless(frame.errors)
    else:
        images = {n: _jpeg(shrink(image, level.side), level.quality) for n, image in frame.images.items()}
        small = round(level.side * _ERROR_SIDE)
        errors = {n: _jpeg(shrink(image[None], small)[0], level.quality) for n, image in frame.errors.items()}
    return {
        "sequence": frame.sequence,
        "frame": frame.frame,
        "index": frame.index,
        "width": frame.width,
        "height": frame.height,
        "reasons": reasons,
        "exact": exact,
        "images": images,
        "errors": errors,
        "patches": [_encode_patch(patch, level.patch) for patch in frame.patches],
    }


def _is_exact(frame: ReducedFrame, level: Level) -> bool:
    """Whether the whole frame keeps every pixel."""
    kept = next(iter(frame.images.values())).shape[-2:]
    return kept == (frame.height, frame.width) and frame.height * frame.width <= level.lossless


def _encode_patch(patch: Patch, side: int) -> dict[str, Any]:
    """The middle of a patch, no larger than `side`."""
    height, width = next(iter(patch.images.values())).shape[-2:]
    down, right = max(0, height - side) // 2, max(0, width - side) // 2
    middle = (..., slice(down, down + side), slice(right, right + side))
    return {
        "top": patch.top + down,
        "left": patch.left + right,
        "width": min(side, width),
        "height": min(side, height),
        "reason": patch.reason,
        "images": _lossless({name: image[middle] for name, image in patch.images.items()}),
        "errors": _lossless({name: image[middle] for name, image in patch.errors.items()}),
    }


def _jpeg(image: U8, quality: int) -> str:
    file = io.BytesIO()
    _pillow(image).save(file, "JPEG", quality=quality, optimize=True)
    return _uri("jpeg", file)


def _lossless(images: Mapping[str, U8]) -> dict[str, str]:
    return {name: lossless_uri(image) for name, image in images.items()}


def lossless_uri(image: U8) -> str:
    """A (3, H, W) or (H, W) picture as a `data:` address that keeps every pixel."""
    file = io.BytesIO()
    if features.check("webp"):  # a third smaller than PNG
        _pillow(image).save(file, "WEBP", lossless=True, quality=20, method=1)
        return _uri("webp", file)
    _pillow(image).save(file, "PNG")
    return _uri("png", file)


def _pillow(image: U8) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0) if image.ndim == 3 else image))


def _uri(kind: str, file: io.BytesIO) -> str:
    return data_uri(kind, file.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """An image file as a `data:` address; `kind` is "jpeg", "png" or "webp"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
