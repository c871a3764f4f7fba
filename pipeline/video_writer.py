"""Frames to video files. Needs PyAV, the `video` extra.

`.mkv` and `.avi` hold the frames exactly (FFV1). `.mp4`, `.mov` and `.m4v` are for players: H.264 in BT.709, at a
quality at which no difference is seen, with colours at half the resolution.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.files import atomic_file
from pipeline.video import VIDEO_ENDINGS, require_av

U8 = npt.NDArray[np.uint8]
_BT709 = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How frames are written.

    Attributes:
        container, codec, pixels: by their names in ffmpeg.
        options: of the codec.
        lossless: whether the frames can be read again bit for bit.
    """

    container: str
    codec: str
    pixels: str
    options: tuple[tuple[str, str], ...] = ()
    lossless: bool = False

    def __str__(self) -> str:
        return f"{self.codec} {self.pixels}{', lossless' if self.lossless else ''}"


def _for_players(container: str) -> Encoding:
    options = (("crf", "10"), ("preset", "medium"))
    return Encoding(container=container, codec="libx264", pixels="yuv420p", options=options)


_ENCODINGS = {
    ".mkv": Encoding(container="matroska", codec="ffv1", pixels="bgr0", lossless=True),
    ".avi": Encoding(container="avi", codec="ffv1", pixels="bgr0", lossless=True),
    ".mp4": _for_players("mp4"),
    ".m4v": _for_players("mp4"),
    ".mov": _for_players("mov"),
}


def encoding_of(path: Path) -> Encoding | None:
    """How a file of this name is encoded; None where the name is not a video's.

    Raises:
        UsageError: it is the name of a video that cannot be written, or PyAV is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in VIDEO_ENDINGS:
        return None
    require_av(path, "writing")
    if suffix not in _ENCODINGS:
        raise UsageError(
            f"{path}: videos are not written as {suffix}",
            f"name it one of {' '.join(_ENCODINGS)}: .mkv is exact",
        )
    return _ENCODINGS[suffix]


@contextlib.contextmanager
def write_video(path: Path, height: int, width: int, rate_hz: Fraction) -> Iterator[Callable[[U8], None]]:
    """A function that adds a frame, (3, H, W) uint8, to a video that appears at `path` once it is complete.

    With colours at half the resolution an odd last row or column is repeated.

    Raises:
        UsageError: as `encoding_of`; ValueError: the name is not a video's, or a frame has another shape.
    """
    encoding = encoding_of(path)
    if encoding is None:
        raise ValueError(f"{path} is not the name of a video")
    av = require_av(path, "writing")
    odd = (height % 2, width % 2) if encoding.pixels == "yuv420p" else (0, 0)
    with atomic_file(path) as file, av.open(file, "w", format=encoding.container) as container:
        stream = container.add_stream(encoding.codec, rate=rate_hz, options=dict(encoding.options))
        stream.height, stream.width, stream.pix_fmt = height + odd[0], width + odd[1], encoding.pixels
        if encoding.pixels.startswith("yuv"):
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709

        def add(image: U8) -> None:
            if image.shape != (3, height, width) or image.dtype != np.uint8:
                raise ValueError(f"frame {image.dtype} {image.shape}, expected uint8 {(3, height, width)}")
            image = np.pad(image, [(0, 0), (0, odd[0]), (0, odd[1])], mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.transpose(1, 2, 0)), format="rgb24")
            container.mux(stream.encode(_converted(frame, encoding)))

        yield add
        container.mux(stream.encode())


def _converted(frame: Any, encoding: Encoding) -> Any:
    if encoding.pixels.startswith("yuv"):
        return frame.reformat(format=encoding.pixels, dst_colorspace="ITU709")
    return frame.reformat(format=encoding.pixels)
