"""Where restored frames go: a folder of PNG files that can be gone on with, or a video, whole or not there."""

import contextlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pipeline.files import remove_partial
from pipeline.images import write_png
from pipeline.video_writer import write_video

U8 = npt.NDArray[np.uint8]
SIDE_BY_SIDE = "side_by_side"


class Output(contextlib.AbstractContextManager["Output"], Protocol):
    """Takes the restored frames of a recording, in order, in the block that it opens.

    Attributes:
        done: frames, from the first on, that are there already.
    """

    done: int

    def add(self, index: int, images: Sequence[U8], panels: Sequence[U8]) -> None:
        """Take frame `index`: an image (3, H, W) uint8 for each instant, and, where wanted, one to compare it with."""
        ...


class FrameFolder(contextlib.AbstractContextManager["FrameFolder"]):
    """PNG files `<folder>/<name>.png`, and what compares them in `<folder>/side_by_side/`.

    Args:
        names: of the files of each frame, one for each instant, without their ending.
        side_by_side: whether there are pictures to compare.
    """

    def __init__(self, folder: Path, names: Sequence[Sequence[str]], *, side_by_side: bool) -> None:
        self._folder, self._names, self._compares = folder, names, side_by_side
        missing = (k for k in range(len(names)) if not all(path.is_file() for path in self._files(k)))
        self.done = next(missing, len(names))

    def __enter__(self) -> Self:
        for place in (self._folder, self._folder / SIDE_BY_SIDE):
            remove_partial(place)
        return self

    def __exit__(self, *error: object) -> None:
        """Every file that is there is whole."""

    def add(self, index: int, images: Sequence[U8], panels: Sequence[U8]) -> None:
        for path, image in zip(self._files(index), [*images, *panels], strict=True):
            write_png(path, image)

    def _files(self, index: int) -> list[Path]:
        folders = [self._folder, *([self._folder / SIDE_BY_SIDE] if self._compares else [])]
        return [folder / f"{name}.png" for folder in folders for name in self._names[index]]


class VideoFile(contextlib.ExitStack):
    """A video, and one beside it that compares; both appear when the block that it opens ends without an error.

    Args:
        rate_hz: images per second.
    """

    def __init__(self, path: Path, rate_hz: Fraction) -> None:
        super().__init__()
        self.done = 0
        self._path, self._rate_hz = path, rate_hz
        self._writers: list[Callable[[U8], None]] = []

    def add(self, index: int, images: Sequence[U8], panels: Sequence[U8]) -> None:
        kinds = [kind for kind in (images, panels) if kind]
        if not self._writers:
            paths = (self._path, side_by_side_of(self._path))
            self._writers = [
                self.enter_context(write_video(path, *kind[0].shape[1:], self._rate_hz))
                for path, kind in zip(paths, kinds, strict=False)
            ]
        for write, kind in zip(self._writers, kinds, strict=True):
            for image in kind:
                write(image)


def side_by_side_of(video: Path) -> Path:
    """The video beside `video` that compares."""
    return video.with_name(f"{video.stem}_{SIDE_BY_SIDE}{video.suffix}")
