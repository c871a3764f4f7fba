"""Where the values of a store's arrays come from: spike files, images, tables. One class for each kind of array."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from pipeline.dat import SpikeStream, open_spikes
from pipeline.errors import FormatError
from pipeline.frames import FramePlace, read_frames
from pipeline.spike_format import SpikeFormat
from pipeline.storage.pieces import Region

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

    def parts(self, start: int, stop: int) -> Iterator[tuple[SpikeStream, int, int]]:
        """The streams, and the span of each, that make up frames [start, stop); only one is open at a time.

        Raises:
            FormatError: a file has changed its length since it was measured.
        """
        first = 0
        for file in self.files:
            a, b = max(start - first, 0), min(stop - first, file.num_frames)
            if a < b:
                stream = open_spikes(file.path, self.format)
                if len(stream) != file.num_frames:
                    raise FormatError(
                        f"{file.path}: has {len(stream)} spike frames, and had {file.num_frames} a moment ago"
                    )
                yield stream, a, b
            first += file.num_frames

    def count(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """How often each pixel fired in frames [start, stop), (H, W)."""
        return sum(
            (stream.count(a, b) for stream, a, b in self.parts(start, stop)),
            start=np.zeros((self.format.height, self.format.valid_width), np.int64),
        )


class Countable(Protocol):
    """Anything that tells how often each pixel fired in frames [start, stop), as (H, W)."""

    def count(self, start: int, stop: int) -> npt.NDArray[np.integer]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSpikes:
    """(T, H, ceil(W / 8)) packed spikes of a recording."""

    files: SpikeFiles

    def block(self, region: Region) -> tuple[U8, dict[str, Any]]:
        """The packed frames of `region`."""
        fmt, (start, stop) = self.files.format, (region[0].start, region[0].stop)
        packed = np.empty((stop - start, fmt.height, -(-fmt.valid_width // 8)), np.uint8)
        done = 0
        for stream, a, b in self.files.parts(start, stop):
            packed[done : done + b - a] = stream.packed(a, b)
            done += b - a
        return packed, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """(N, 3, H, W) images; a frame that is nowhere stays zeros, marked by a `sharp_index` of -1."""

    paths: tuple[FramePlace | None, ...]
    height: int
    width: int

    def block(self, region: Region) -> tuple[U8, dict[str, Any]]:
        """The images of `region`, and a checksum of each one's pixels."""
        paths = self.paths[region[0]]
        images = np.zeros((len(paths), 3, self.height, self.width), np.uint8)
        there = [(k, path) for k, path in enumerate(paths) if path is not None]
        for (k, path), pixels in zip(there, read_frames([path for _, path in there]), strict=True):
            if pixels.shape[1:] != (self.height, self.width):
                found = f"{pixels.shape[1]}x{pixels.shape[2]}"
                raise FormatError(
                    f"{path}: {found} pixels, but the sequence's first is {self.height}x{self.width}"
                )
            images[k] = pixels
        return images, _pixel_sums(images)


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

    def block(self, region: Region) -> tuple[U8, dict[str, Any]]:
        """The grey frames of the exposures in `region`, and a checksum of each."""
        images = np.stack([self._expose(a, b) for a, b in self.spans[region[0]]])
        return images, _pixel_sums(images)

    def _expose(self, start: int, stop: int) -> U8:
        counts = self.files.count(start, stop)
        grey = np.minimum(np.rint(WHITE * self.threshold * counts / (stop - start)), WHITE).astype(np.uint8)
        grey = grey.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        return np.broadcast_to(grey, (3, *grey.shape))


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A small int64 table, as nested tuples."""

    values: tuple[Any, ...]

    def block(self, region: Region) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """The rows of `region`."""
        return np.array(self.values, np.int64)[region], {}


def _pixel_sums(images: U8) -> dict[str, Any]:
    return {"pixels_crc32c": [google_crc32c.value(np.ascontiguousarray(image)) for image in images]}
