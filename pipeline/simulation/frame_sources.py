"""Sharp frames to simulate from: image files, folders of them, video files."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import FormatError, UsageError
from pipeline.images import read_rgb

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm")

Image = npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Consecutive frames of one camera."""

    path: Path
    rate_hz: Fraction | None

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Image]:
        """Frames [start, stop), each (3, H, W) uint8."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The image files of one folder, in the order of their names, or one image file."""

    path: Path
    images: tuple[Path, ...]
    rate_hz: Fraction | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Iterator[Image]:
        """Frames [start, stop), each (3, H, W) uint8."""
        return (read_rgb(image) for image in self.images[start:stop])


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video with a constant frame rate. Needs PyAV, the `video` extra.

    `rate_hz` is the rate it declares, which for slow-motion footage is that of its playback.
    """

    path: Path
    length: int
    rate_hz: Fraction | None

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> Iterator[Image]:
        """Frames [start, stop), each (3, H, W) uint8.

        Decoding starts at the beginning: seeking by time is not exact in many containers.

        Raises:
            FormatError: the video is damaged, or ends early.
        """
        return _decode(self.path, start, stop)


def open_video(path: Path) -> VideoFile:
    """Open a video, count its frames and read its rate.

    Raises:
        UsageError: PyAV is not installed.
        FormatError: not a readable video.
    """
    av = _import_av(path)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            length = sum(1 for packet in container.demux(stream) if packet.size)
    except (av.error.FFmpegError, IndexError) as error:
        raise FormatError(f"{path}: not a readable video: {error}") from error
    if not length:
        raise FormatError(f"{path}: a video without frames")
    return VideoFile(path, length, Fraction(rate) if rate else None)


def find_sources(path: Path) -> tuple[FrameSource, ...]:
    """Every source under `path`, in the order of names.

    An image or video file is one source; a folder of images is one; a folder of such folders or of videos is many.

    Raises:
        UsageError: nothing there to film, or images lie beside folders or videos.
    """
    if path.is_file():
        return (_open_file(path),)
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder", "give a video, an image, or a folder of them")
    images, videos, folders = _listing(path)
    if images and (videos or folders):
        raise UsageError(
            f"{path}: {len(images)} images beside {len(videos)} videos and {len(folders)} folders",
            "put the frames of each sequence in a folder of its own",
        )
    if images:
        return (ImageFolder(path, images),)
    sources = [open_video(video) for video in videos]
    sources += [ImageFolder(folder, found) for folder in folders if (found := _listing(folder)[0])]
    if not sources:
        known = " ".join(IMAGE_ENDINGS + VIDEO_ENDINGS)
        raise UsageError(f"{path}: no images or videos there", f"known endings: {known}")
    return tuple(sources)


def _open_file(path: Path) -> FrameSource:
    if path.suffix.lower() in VIDEO_ENDINGS:
        return open_video(path)
    if path.suffix.lower() in IMAGE_ENDINGS:
        return ImageFolder(path, (path,))
    raise UsageError(f"{path}: neither an image nor a video by its ending {path.suffix!r}")


def _listing(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...], tuple[Path, ...]]:
    """Images, videos and folders in `folder`, sorted; hidden ones are left out."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.is_file()]
    images = tuple(file for file in files if file.suffix.lower() in IMAGE_ENDINGS)
    videos = tuple(file for file in files if file.suffix.lower() in VIDEO_ENDINGS)
    return images, videos, tuple(entry for entry in entries if entry.is_dir())


def _decode(path: Path, start: int, stop: int) -> Iterator[Image]:
    av = _import_av(path)
    index = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if index >= stop:
                    return
                if index >= start:
                    yield np.ascontiguousarray(frame.to_ndarray(format="rgb24").transpose(2, 0, 1))
                index += 1
    except av.error.FFmpegError as error:
        raise FormatError(f"{path}: frame {index} cannot be decoded: {error}") from error
    if index < stop:
        raise FormatError(f"{path}: ends after {index} frames, frame {stop - 1} was wanted")


def _import_av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"{path}: reading a video needs PyAV, which is not installed",
            'pip install "spike-deblur[video]", or extract the frames to a folder of PNG files',
        ) from error
    return av
