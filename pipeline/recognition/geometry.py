"""How the bits of a spike stream are to be read: the picture that they make in the mean over time tells.

Neighbouring pixels of a scene are alike, so the mean image read with the right height, width and bit order is smooth:
its lag-1 correlation is 0.98 or more along rows and columns, and falls to 0.90 or less in one of the directions when
read wrongly. The size of a file tells nothing: 2,534,400 bytes are 88 frames of 360x640 and 80 of 396x640. Where the
stream shows its frame period (`frame_period`), readings with frames of another size count half.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.dat import FRAMES_PER_BLOCK, SpikeStream, open_spikes
from pipeline.errors import FormatError
from pipeline.inputs import require_file
from pipeline.physics import correlation
from pipeline.recognition.frame_period import (
    MAX_BYTES,
    MOST_TOGETHER,
    find_period,
    part_of,
    possible_periods,
    search_periods,
)
from pipeline.recognition.smoothness import GeometryScore, has_head, score_reading
from pipeline.spike_format import Span, SpikeFormat

COMMON: tuple[tuple[int, int], ...] = (
    *((250, 400), (360, 640), (384, 384), (256, 256), (180, 320), (500, 800), (1000, 1000)),
    *((250, 250), (260, 346), (400, 600), (720, 1280), (768, 1024)),
)
"""Height and width of the cameras and data sets in use."""
WITH_HEAD: tuple[tuple[int, int, tuple[Span, ...]], ...] = (
    (250, 416, ((0, 400),)),
    (1000, 1024, ((0, 500), (512, 1012))),
    (1000, 1024, ((0, 1000),)),
)
"""Height, width and columns that are pixels of the cameras that write others: SPS10, SPS100 and a cut of it."""

MAX_FRAMES = 512
MAX_PIXELS_READ = 1 << 26
"""Frames, and pixels in all, that are looked at: more say nothing new of a picture."""
CREDIBLE = 0.9
"""A score that a wrong reading does not reach; a declared geometry above it is not questioned."""
BEATEN_BY = 0.08
LEGIBLE = 0.6
"""Below this even the best reading may be chance: nothing is refused, and nothing is taken for detected."""
CLEARLY = 1.5
"""The runner-up is at least so much farther from a perfect score of 1 than a reading that is taken for detected."""
ROW_ENDS = 0.7
"""A geometry of no known camera refutes another one only if its rows end where the picture does: of a reading with rows
of a multiple of the right width, all do; with half of it, one in two."""
MOST_RECTANGLES = 8
"""Geometries of no known camera that are compared in full."""
LONGEST_SIDE = 4
"""Times the shorter one, for geometries that no camera is known for."""
_ANY_RATE = Fraction(1)


def rank_geometries(path: Path, extra: Iterable[tuple[int, int]] = ()) -> list[GeometryScore]:
    """Score the ways to read a `.dat`: every common geometry, the `extra` (height, width), and the rectangles of the
    frame size that the stream shows; in both bit orders and, where it matters, both paddings.

    Returns:
        Best first; empty when nothing known divides the file and it shows no frame period.

    Raises:
        FormatError: the file cannot be read as spikes at all.
    """
    file = _File.open(Path(path))
    readings = [*_readings_with_head(), *_readings(COMMON), *_readings(extra)]
    of_known_sizes = (fmt.frame_bits for fmt in readings if file.fits(fmt))
    period = file.period([*possible_periods(file.size), *of_known_sizes])
    period = part_of(file.head, period) if period else file.period(search_periods(file.head, file.size))
    if period is not None:
        readings += file.rectangles(period)
    scores = [score for fmt in dict.fromkeys(readings) if (score := file.score(fmt, period))]
    heads = {(one.reading.height, one.reading.width) for one in scores if one.reading.valid_columns}
    whole = [
        one
        for one in scores
        if one.reading.valid_columns or (one.reading.height, one.reading.width) not in heads
    ]
    return sorted(whole, key=lambda score: score.score, reverse=True)


def check_geometry(path: Path, fmt: SpikeFormat) -> GeometryScore:
    """Score the declared reading of a spike file, and refuse it when another one is clearly right.

    At most 512 frames are read. In `.npy` and `.npz` files, which know their axes, there is nothing to compare.

    Raises:
        FormatError: another reading makes a much smoother picture; or as `open_spikes`.
    """
    path = Path(path)
    if path.suffix.lower() != ".dat":
        return score_reading(_count_some(_whole(path, fmt)), fmt, len(open_spikes(path, fmt)), None)
    file = _File.open(path)
    if not file.fits(fmt):
        raise _no_whole_frames(file, fmt)
    period = file.period(_parts_and_multiples(fmt.frame_bits))
    declared = file.score(fmt, period, must_fit=True)
    assert declared is not None
    other_order: Literal["lsb", "msb"] = "msb" if fmt.bit_order == "lsb" else "lsb"
    others = [file.score(replace(fmt, bit_order=other_order), period)]
    if declared.score < CREDIBLE:
        others += [
            one
            for one in rank_geometries(path, [(fmt.height, fmt.width)])
            if _is_known(one.reading)
            or declared.in_period is False
            or one.row_ends > ROW_ENDS * declared.row_ends
        ]
    best = max((one for one in others if one), key=lambda score: score.score, default=declared)
    if _beats(best, declared):
        raise FormatError(
            f"{path}: read as declared, {declared}, it makes no picture (smoothness {declared.score:.3f});"
            f" as {best} it does ({best.score:.3f})",
            f"declare that, in the manifest or in the command: {best.settings()}; all candidates: spk inspect {path}",
        )
    return declared


def explain_size(path: Path) -> str:
    """Which common geometry the beginning of a `.dat` shows although its size does not fit; empty if none."""
    file = _File.open(Path(path))
    readings = [*_readings(COMMON), *_readings_with_head()]
    period = file.period(fmt.frame_bits for fmt in readings)
    named = ", ".join(
        dict.fromkeys(f"{fmt.height}x{fmt.width}" for fmt in readings if fmt.frame_bits == period)
    )
    if period is None:
        return ""
    frames, over = divmod(file.size, period // 8)
    return f"it begins with frames as large as {named}, and holds {frames} of them and {over} bytes"


def detect_geometry(path: Path) -> GeometryScore:
    """The one way to read a `.dat` that makes a picture.

    Raises:
        FormatError: none does, or another one does nearly as well.
    """
    ranked = rank_geometries(path)
    if not ranked or ranked[0].score < LEGIBLE:
        best = (
            f"the best, {ranked[0]}, reaches {ranked[0].score:.3f} of {LEGIBLE}"
            if ranked
            else "none is known"
        )
        raise FormatError(
            f"{path}: no way to read it makes a picture: {best}",
            f"declare height and width; candidates: spk inspect {path}",
        )
    best, *others = ranked
    if others and 1 - others[0].score < CLEARLY * (1 - best.score):
        raise FormatError(
            f"{path}: {best} (smoothness {best.score:.3f}) and {others[0]} ({others[0].score:.3f}) are too close to"
            " tell which it is",
            f"look at both with spk inspect {path}, and declare one: {best.settings()}",
        )
    return best


@dataclass(frozen=True, eq=False)
class _File:
    """A `.dat` whose readings are compared; what one reading has counted serves the others of that frame size."""

    path: Path
    size: int
    head: npt.NDArray[np.uint8]
    counted: dict[tuple[int, int, str], tuple[npt.NDArray[np.float64], int]]

    @classmethod
    def open(cls, path: Path) -> "_File":
        size = require_file(path, "spike")
        head = np.asarray(np.memmap(path, np.uint8, "r", shape=(size,)))
        return cls(path, size, head[: 4 * MAX_BYTES], {})

    def period(self, periods: Iterable[int]) -> int | None:
        return find_period(self.head, periods)

    def rectangles(self, period: int) -> list[SpikeFormat]:
        """The readings with frames of `period` bits in which rows resemble those below best."""
        whole = period % 8 == 0
        found: list[tuple[float, SpikeFormat]] = []
        for order in ("lsb", "msb"):
            counts = self.counts_of(period, order)
            filled = 1 + int(np.flatnonzero(counts)[-1]) if counts.any() else period
            for pixels in range(max(filled, period - 7) if whole else period, period + 1):
                padding = "none" if pixels % 8 == 0 else "frame" if whole else "end"
                found += _rectangles(counts[:pixels], order, padding)
        found.sort(key=lambda one: one[0], reverse=True)
        return [fmt for _, fmt in found[:MOST_RECTANGLES]]

    def counts_of(self, period: int, order: str) -> npt.NDArray[np.float64]:
        """Spikes of each bit of a frame of `period` bits in the first frames: (period,)."""
        frames = min(FRAMES_PER_BLOCK, 8 * self.head.size // period)
        bits = np.unpackbits(self.head, count=frames * period, bitorder="little" if order == "lsb" else "big")
        return bits.reshape(frames, period).sum(axis=0, dtype=np.float64)

    def fits(self, fmt: SpikeFormat) -> bool:
        """Whether the size of the file is a whole number of such frames."""
        return 8 * self.size % fmt.frame_bits < (8 if fmt.padding == "end" else 1)

    def score(self, fmt: SpikeFormat, period: int | None, *, must_fit: bool = False) -> GeometryScore | None:
        """The score of a reading; None when it does not fit the file, or an error where it must."""
        if not (must_fit or self.fits(fmt)):
            return None
        try:
            counts = self.counts(fmt)
        except FormatError:
            if must_fit:
                raise
            return None
        if not must_fit and fmt.valid_columns and not has_head(counts, fmt):
            return None
        frames = 8 * self.size // fmt.frame_bits
        return score_reading(counts, fmt, frames, None if period is None else fmt.frame_bits == period)

    def counts(self, fmt: SpikeFormat) -> npt.NDArray[np.float64]:
        """Spikes of each pixel on file, (height, width), head columns included.

        Raises:
            FormatError: the file is no whole number of such frames.
        """
        key = fmt.frame_bits, fmt.pixels, fmt.bit_order
        if key not in self.counted:
            mirror = fmt.frame_bits, fmt.pixels, "msb" if fmt.bit_order == "lsb" else "lsb"
            if fmt.pixels % 8 == 0 and mirror in self.counted:
                self.counted[key] = self.counted[mirror].reshape(-1, 8)[:, ::-1].ravel()
            else:
                self.counted[key] = _count_some(_whole(self.path, fmt)).ravel()
        return self.counted[key].reshape(fmt.height, fmt.width)


def _no_whole_frames(file: _File, fmt: SpikeFormat) -> FormatError:
    """What to say of a file whose size does not fit: whether its whole frames make a picture, and what else may."""
    counts = file.counts_of(fmt.frame_bits, fmt.bit_order)[: fmt.pixels].reshape(fmt.height, fmt.width)
    whole = score_reading(counts, fmt, 8 * file.size // fmt.frame_bits, None)
    ranked = rank_geometries(file.path)
    best = f"; as {ranked[0]} it is {ranked[0].score:.3f}" if ranked and ranked[0].score > whole.score else ""
    fix = f"declare that: {ranked[0].settings()}; all" if best else "copy it again from its source; all"
    return FormatError(
        f"{file.path}: {file.size} bytes is not a whole number of {fmt.frame_text}; its"
        f" {whole.frames} whole ones have a smoothness of {whole.score:.3f}{best}",
        f"{fix} candidates: spk inspect {file.path}",
    )


def _is_known(fmt: SpikeFormat) -> bool:
    """Whether there are cameras or data sets of this size."""
    return (fmt.height, fmt.width) in COMMON or fmt.valid_columns is not None


def _parts_and_multiples(bits: int) -> list[int]:
    """Frame sizes that a reading of `bits` to a frame may take apart or put together and still look smooth."""
    parts = [bits // m for m in range(1, MOST_TOGETHER + 1) if bits % m == 0]
    return parts + [bits * m for m in range(2, MOST_TOGETHER + 1)]


def _reading(height: int, width: int, columns: tuple[Span, ...] | None = None) -> SpikeFormat:
    padding: Literal["none", "frame"] = "frame" if height * width % 8 else "none"
    return SpikeFormat(height=height, width=width, rate_hz=_ANY_RATE, valid_columns=columns, padding=padding)


def _readings(sizes: Iterable[tuple[int, int]]) -> Iterator[SpikeFormat]:
    for height, width in sizes:
        yield from _in_both_orders(_reading(height, width))


def _readings_with_head() -> Iterator[SpikeFormat]:
    for height, width, columns in WITH_HEAD:
        yield from _in_both_orders(_reading(height, width, columns))


def _in_both_orders(fmt: SpikeFormat) -> Iterator[SpikeFormat]:
    for padding in ("frame", "end") if fmt.pixels % 8 else ("none",):
        for order in ("lsb", "msb"):
            yield replace(fmt, bit_order=order, padding=padding)


def _rectangles(
    counts: npt.NDArray[np.float64], order: str, padding: str
) -> Iterator[tuple[float, SpikeFormat]]:
    """The ways to cut a frame's pixels into equal rows, in no extreme proportion, with how alike rows are."""
    pixels = len(counts)
    for width in range(8, pixels // 8 + 1):
        height, over = divmod(pixels, width)
        if not over and max(height, width) <= LONGEST_SIDE * min(height, width):
            alike = correlation(counts[:-width], counts[width:])
            yield alike, replace(_reading(height, width), bit_order=order, padding=padding)


def _whole(path: Path, fmt: SpikeFormat) -> SpikeStream:
    return open_spikes(path, replace(fmt, valid_columns=None, flip="none", num_frames=None))


def _count_some(stream: SpikeStream) -> npt.NDArray[np.float64]:
    """Spikes of each pixel on file in some frames, in blocks spread over the recording."""
    starts = np.arange(0, len(stream), FRAMES_PER_BLOCK)
    frames = min(MAX_FRAMES, MAX_PIXELS_READ // math.prod(stream.shape[1:]))
    most = max(1, frames // FRAMES_PER_BLOCK)
    chosen = starts[np.linspace(0, len(starts) - 1, min(len(starts), most)).astype(int)].tolist()
    counts = [stream.count(start, min(start + FRAMES_PER_BLOCK, len(stream))) for start in chosen]
    return np.sum(counts, axis=0, dtype=np.float64)


def _beats(best: GeometryScore, declared: GeometryScore) -> bool:
    """Clearly: by a picture against noise, or, in dim or short streams whose pictures are noisy, by a wide margin."""
    better, worse = best.score, declared.score
    if best.reading.frame_bits == declared.reading.frame_bits and best.size == declared.size:
        # Of two bit orders, none is more in period or less folded than the other.
        better, worse = best.smooth, declared.smooth
    nearer = better - worse > BEATEN_BY or 1 - worse > 4 * (1 - better)
    clear = better >= CREDIBLE and nearer
    wide = better >= LEGIBLE and worse < better * 0.7
    return clear or wide
