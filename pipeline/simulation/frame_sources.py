"""Sharp frames to simulate from: image files, folders of them, video files."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.images import IMAGE_ENDINGS, read_rgb
from pipeline.video import VIDEO_ENDINGS, open_video

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
    sources: list[FrameSource] = [open_video(video) for video in videos]
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
