"""Where the values of a store's arrays come from: spike files, images, tables. One class for each kind of array."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from pipeline.dat import FRAMES_PER_BLOCK, SpikeStream, open_spikes
from pipeline.errors import FormatError
from pipeline.frames import FramePlace, read_frames
from pipeline.spike_format import SpikeFormat
from pipeline.storage.pieces import WholeBlock
from pipeline.storage.shards import Region
from pipeline.voxels import bin_packed

U8 = npt.NDArray[np.uint8]
WHITE = 255


@dataclass(frozen=True, slots=True)
class SpikeFile:
    """One spike file and how many frames it has: what aligning needs, without holding thousands of files open."""

    path: Path
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeFiles:
    """The spike files of one recording, end to end, as one stream.

    Attributes:
        files: in order of time.
    """

    files: tuple[SpikeFile, ...]
    format: SpikeFormat

    @staticmethod
    def measure(paths: Iterable[Path], fmt: SpikeFormat) -> "SpikeFiles":
        """Open each file once, to check it and to count its frames.

        Raises:
            FormatError: one is not a recording of this format.
        """
        files = tuple(SpikeFile(path, len(open_spikes(path, fmt))) for path in paths)
        return SpikeFiles(files=files, format=fmt)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Spike frames of each file."""
        return tuple(file.num_frames for file in self.files)

    @property
    def num_frames(self) -> int:
        return sum(self.lengths)

    def parts(
        self, start: int, stop: int, opened: Callable[[Path, SpikeFormat], SpikeStream] = open_spikes
    ) -> Iterator[tuple[SpikeStream, int, int]]:
        """The streams, and the span of each, that make up frames [start, stop); only one is open at a time.

        Args:
            opened: opens a file, or has it open still.

        Raises:
            FormatError: a file has changed its length since it was measured.
        """
        first = 0
        for file in self.files:
            a, b = max(start - first, 0), min(stop - first, file.num_frames)
            if a < b:
                stream = opened(file.path, self.format)
                if len(stream) != file.num_frames:
                    raise FormatError(
                        f"{file.path}: has {len(stream)} spike frames, and had {file.num_frames} a moment ago"
                    )
                yield stream, a, b
            first += file.num_frames

    def count(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """How often each pixel fired in frames [start, stop), (H, W); memory stays bounded."""
        width = self.format.valid_width
        counts = np.zeros((self.format.height, width), np.int64)
        for stream, a, b in self.parts(start, stop):
            for first in range(a, b, FRAMES_PER_BLOCK):
                counts += bin_packed(stream.packed(first, min(first + FRAMES_PER_BLOCK, b)), 1, width)[0]
        return counts


class Countable(Protocol):
    """Anything that tells how often each pixel fired in frames [start, stop), as (H, W)."""

    def count(self, start: int, stop: int) -> npt.NDArray[np.integer]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSpikes:
    """(T, H, ceil(W / 8)) packed spikes of a recording."""

    files: SpikeFiles

    def open(self, region: Region) -> "_SpikeBlock":
        """The packed frames of `region`."""
        return _SpikeBlock(self.files, region[0])


class _SpikeBlock:
    """Packed frames, read in the order they were recorded; one file is open at a time."""

    def __init__(self, files: SpikeFiles, frames: slice) -> None:
        self._runs = files.parts(frames.start, frames.stop)
        self._run: tuple[SpikeStream, int, int] | None = None

    def chunk(self, part: Region) -> U8:
        frames = part[0].stop - part[0].start
        found = [self._next(frames)]
        while (missing := frames - sum(map(len, found))) > 0:
            found.append(self._next(missing))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def summary(self) -> dict[str, Any]:
        return {}

    def _next(self, most: int) -> U8:
        stream, a, b = self._run or next(self._runs)
        stop = min(a + most, b)
        self._run = (stream, stop, b) if stop < b else None
        return stream.packed(a, stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """(N, 3, H, W) images; a frame that is nowhere stays zeros, marked by a `sharp_index` of -1."""

    paths: tuple[FramePlace | None, ...]
    height: int
    width: int

    def open(self, region: Region) -> "_FrameBlock":
        """The images of `region`, and a checksum of each one's pixels."""
        return _FrameBlock(self._frames(self.paths[region[0]]))

    def _frames(self, paths: tuple[FramePlace | None, ...]) -> Iterator[U8]:
        decoded = read_frames([path for path in paths if path is not None])
        for path in paths:
            if path is None:
                yield np.zeros((3, self.height, self.width), np.uint8)
                continue
            pixels = next(decoded)
            if pixels.shape[1:] != (self.height, self.width):
                found = f"{pixels.shape[1]}x{pixels.shape[2]}"
                raise FormatError(
                    f"{path}: {found} pixels, but the sequence's first is {self.height}x{self.width}"
                )
            yield pixels


class _FrameBlock:
    """Images that are made one after the other; each is cut into its chunks before the next is made."""

    def __init__(self, frames: Iterator[U8]) -> None:
        self._frames = frames
        self._number: int | None = None
        self._image = np.empty(0, np.uint8)
        self._sums: list[int] = []

    def chunk(self, part: Region) -> U8:
        assert part[0].stop - part[0].start == 1
        if part[0].start != self._number:
            self._number, self._image = part[0].start, next(self._frames)
            self._sums.append(google_crc32c.value(np.ascontiguousarray(self._image)))
        return self._image[part[1:]][None]

    def summary(self) -> dict[str, Any]:
        return {"pixels_crc32c": self._sums}


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyFromSpikes:
    """(N, 3, H * scale, W * scale) blurry frames that a grey camera would have taken: mean spike rate x threshold.

    For data sets without RGB whose manifest asks for it. An integrate-and-fire pixel that sees intensity I fires
    I / threshold times per spike frame, so the rate over an exposure is its blurry image.
    """

    files: Countable
    spans: tuple[tuple[int, int], ...]
    threshold: float
    scale: int

    def open(self, region: Region) -> _FrameBlock:
        """The grey frames of the exposures in `region`, and a checksum of each."""
        return _FrameBlock(self._expose(a, b) for a, b in self.spans[region[0]])

    def _expose(self, start: int, stop: int) -> U8:
        every_count = np.arange(stop - start + 1)
        shades = np.minimum(np.rint(WHITE * self.threshold * every_count / (stop - start)), WHITE)
        grey = shades.astype(np.uint8)[self.files.count(start, stop)]
        grey = grey.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        return np.broadcast_to(grey, (3, *grey.shape))


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A small int64 table, as nested tuples."""

    values: tuple[Any, ...]

    def open(self, region: Region) -> WholeBlock:
        """The rows of `region`."""
        return WholeBlock(region, np.array(self.values, np.int64)[region])
