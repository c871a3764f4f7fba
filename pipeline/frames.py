"""RGB frames wherever they are: image files, and frames of video files."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.images import image_size, read_rgb
from pipeline.video import VideoFrame

FramePlace = Path | VideoFrame
"""Where one RGB frame is. As text it names file and frame."""


def file_of(place: FramePlace) -> Path:
    """The file that holds a frame."""
    return place.video.path if isinstance(place, VideoFrame) else place


def frame_size(place: FramePlace) -> tuple[int, int]:
    """(height, width) as the file's header says, without decoding the frame.

    Raises:
        FormatError: as `images.image_size`.
    """
    return (place.video.height, place.video.width) if isinstance(place, VideoFrame) else image_size(place)


def read_frames(places: Sequence[FramePlace]) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames at `places`, each (3, H, W) uint8, one in memory at a time; a run of one video in one pass.

    Raises:
        FormatError: as `images.read_rgb` and `Video.read`; UsageError: a video, and PyAV is not installed.
    """
    for _, run in itertools.groupby(enumerate(places), key=_run_of):
        found = [place for _, place in run]
        first = found[0]
        if isinstance(first, VideoFrame):
            yield from first.video.read(first.index, first.index + len(found))
        else:
            yield from map(read_rgb, (place for place in found if isinstance(place, Path)))


def read_frame(place: FramePlace) -> npt.NDArray[np.uint8]:
    """One frame, as `read_frames`."""
    (frame,) = read_frames([place])
    return frame


def _run_of(numbered: tuple[int, FramePlace]) -> tuple[Path, int] | None:
    """The same for frames that follow each other in one video, and for image files."""
    k, place = numbered
    return (place.video.path, place.index - k) if isinstance(place, VideoFrame) else None
