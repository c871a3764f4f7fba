"""Video files: their frames by number, exactly. Needs PyAV, the `video` extra.

Frames are counted, never timed: a variable or wrong frame rate changes nothing. Frames become RGB by libswscale with
the colour matrix that the stream declares, BT.601 where it declares none, as `ffmpeg -i rgb.mp4 %06d.png` does.
"""

import bisect
import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import FormatError, UsageError
from pipeline.images import MAX_PIXELS
from pipeline.inputs import require_file

U8 = npt.NDArray[np.uint8]

VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm")
_STAMPED = {"mov", "matroska"}
"""Containers that say when each frame is shown; in the others the stamps of reordered frames are made up."""
_OPTIONS = {
    # Playlists, which read other files, are no video files whatever their ending.
    "format_whitelist": "mov,avi,matroska,m4v,mpeg,mpegts,mpegvideo",
    "max_pixels": str(MAX_PIXELS),
    "err_detect": "crccheck+bitstream+buffer+explode",
}
_MATRICES = {0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
"""By their numbers in libavutil's AVColorSpace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video file, and where in it each of its frames is.

    Attributes:
        length: frames.
        height, width: of a frame, as the header says.
        rate_hz: the frame rate it declares, which for slow-motion footage is that of its playback.
        encoding: codec, pixel format and colour matrix, for people.
        stamps: what the container says of each frame's time, increasing; empty where it cannot be relied on.
        entries: (frame, decoding stamp) of the key frames from which decoding may start, increasing.
    """

    path: Path
    length: int
    height: int
    width: int
    rate_hz: Fraction | None
    encoding: str
    stamps: tuple[int, ...] = ()
    entries: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> Iterator[U8]:
        """Frames [start, stop), each (3, H, W) uint8, one in memory at a time.

        Decoding starts at the last key frame before `start` where the container tells exactly which frame that is,
        else at the beginning.

        Raises:
            FormatError: a frame is damaged, missing, or not 8 bits per channel; the video ends early, or has more
                frames than its index when read to the end.
        """
        entry = (
            self.entries[bisect.bisect_right(self.entries, (start, 2**63)) - 1] if self.entries else (0, 0)
        )
        frames = self._numbered(*entry)
        first = list(itertools.islice(frames, 1))
        exact = first and first[0][0] <= start
        frames = itertools.chain(first, frames) if exact or not entry[0] else self._numbered(0, 0)
        wanted = start
        for index, frame in frames:
            if index == wanted and index < stop:
                yield self._pixels(frame, index)
                wanted += 1
            elif index > wanted:
                raise FormatError(f"{self.path}: frame {wanted} cannot be decoded", _AGAIN)
            if wanted == stop < self.length:
                return
        if wanted < stop:
            found = f"ends after {wanted} frames, frame {stop - 1} was wanted"
            raise FormatError(f"{self.path}: {found}", _AGAIN)

    def _numbered(self, entry: int, stamp: int) -> Iterator[tuple[int, Any]]:
        """Decoded frames with their numbers, from the key frame number `entry`, or an earlier one, to the end."""
        index = entry
        with _opened(self.path) as (container, stream):
            if entry:
                container.seek(stamp, stream=stream)
            try:
                for count, frame in enumerate(container.decode(stream)):
                    index = self._number(frame, count)
                    if frame.is_corrupt and index >= entry:
                        raise FormatError(f"{self.path}: frame {index} is damaged", _AGAIN)
                    yield index, frame
            except require_av(self.path).error.FFmpegError as error:
                raise FormatError(
                    f"{self.path}: frame {index} or one after it cannot be decoded: {error}", _AGAIN
                ) from error

    def _number(self, frame: Any, count: int) -> int:
        if not self.stamps:
            index = count
        else:
            index = bisect.bisect_left(self.stamps, frame.pts if frame.pts is not None else 2**63)
            if index < self.length and self.stamps[index] != frame.pts:
                raise FormatError(f"{self.path}: a frame at {frame.pts} is not in its own index", _AGAIN)
        if index >= self.length:
            raise FormatError(f"{self.path}: more frames than the {self.length} of its index", _AGAIN)
        return index

    def _pixels(self, frame: Any, index: int) -> U8:
        if (frame.height, frame.width) != (self.height, self.width):
            raise FormatError(
                f"{self.path}: frame {index} is {frame.height}x{frame.width}, the first {self.height}x{self.width}"
            )
        if max(component.bits for component in frame.format.components) > 8:
            raise FormatError(
                f"{self.path}: {frame.format.name}: more than 8 bits per channel", "convert it to 8 bits"
            )
        if frame.rotation:
            raise FormatError(
                f"{self.path}: to be turned by {frame.rotation} degrees when shown",
                "encode it turned, without the flag",
            )
        return np.ascontiguousarray(frame.to_ndarray(format="rgb24").transpose(2, 0, 1))


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video, where others have an image file."""

    video: Video
    index: int

    def __str__(self) -> str:
        return f"{self.video.path} frame {self.index}"


_AGAIN = "copy the video again from its source, or extract the frames that are whole to PNG files"


def open_video(path: Path) -> Video:
    """Open a video and number its frames, without decoding them.

    Raises:
        UsageError: PyAV is not installed.
        FormatError: not a readable video file, no frames, or more than `images.MAX_PIXELS` to a frame.
    """
    with _opened(path) as (container, stream):
        context = stream.codec_context
        try:
            packets = [
                (packet.pts, packet.dts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
        except require_av(path).error.FFmpegError as error:
            raise FormatError(f"{path}: not a readable video: {error}", _AGAIN) from error
        if not packets:
            raise FormatError(f"{path}: a video without frames")
        stamped = container.format.name.split(",")[0] in _STAMPED or all(key for *_, key in packets)
        stamps, entries = _index(packets) if stamped else ((), ())
        matrix = _MATRICES.get(int(context.colorspace), "BT.601, not declared")
        return Video(
            path=Path(path),
            length=len(packets),
            height=context.height,
            width=context.width,
            rate_hz=Fraction(stream.average_rate) if stream.average_rate else None,
            encoding=f"{context.name} {context.pix_fmt}, {matrix}",
            stamps=stamps,
            entries=entries,
        )


def _index(
    packets: Sequence[tuple[int | None, int | None, bool]],
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The stamps of all frames as shown, and the key frames with everything before them shown before them."""
    shown = [pts for pts, _, _ in packets if pts is not None]
    if len(set(shown)) < len(packets):
        return (), ()
    stamps = tuple(sorted(shown))
    before = list(itertools.accumulate(shown, max))
    after = list(itertools.accumulate(reversed(shown), min))[::-1]
    entries = [
        (k, dts)
        for k, (pts, dts, is_key) in enumerate(packets)
        if is_key and dts is not None and before[k] == pts == after[k]
    ]
    return stamps, tuple(entries)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, with sizes checked before anything is decoded."""
    av = require_av(path)
    require_file(path, "video")
    try:
        # "file:" and an absolute path, so that no name is taken for a network address.
        container = av.open(f"file:{os.path.abspath(path)}", options=_OPTIONS)
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        raise FormatError(f"{path}: not a readable video: {error}", _AGAIN) from error
    with container:
        if not container.streams.video:
            raise FormatError(f"{path}: not a readable video: it holds no pictures")
        stream = container.streams.video[0]
        context = stream.codec_context
        if not context or not 0 < context.height * context.width <= MAX_PIXELS:
            size = f"{context.height}x{context.width}" if context else "no"
            raise FormatError(f"{path}: {size} pixels, expected 1 to {MAX_PIXELS}")
        context.options = _OPTIONS
        yield container, stream


def require_av(path: Path, doing: str = "reading") -> Any:
    """The module of PyAV.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"{path}: {doing} a video needs PyAV, which is not installed",
            'pip install "spike-deblur[video]", or use a folder of PNG files',
        ) from error
    return av
