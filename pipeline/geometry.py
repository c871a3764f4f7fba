"""Is a spike stream what it is declared to be? The picture that its bits make in the mean over time tells.

Neighbouring pixels of a scene are alike, so the mean image read with the right height, width and bit order is smooth:
its lag-1 correlation is 0.98 or more along rows and columns, and falls to 0.90 or less in one of the directions when
read wrongly. The size of a file tells nothing: 2,534,400 bytes are 88 frames of 360x640 and 80 of 396x640.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.dat import FRAMES_PER_BLOCK, SpikeStream, open_spikes
from pipeline.errors import FormatError
from pipeline.inputs import require_file
from pipeline.spike_format import SpikeFormat

COMMON = (
    (250, 400),
    (360, 640),
    (384, 384),
    (256, 256),
    (180, 320),
    (500, 800),
    (1000, 1000),
    (260, 346),
    (400, 600),
    (720, 1280),
    (768, 1024),
)
"""Height and width of the cameras and data sets in use."""

MAX_FRAMES = 512
CREDIBLE = 0.9
"""A score that a wrong reading does not reach; a declared geometry above it is not questioned."""
BEATEN_BY = 0.08
LEGIBLE = 0.6
"""Below this even the best reading may be chance: nothing is refused."""
_ANY_RATE = Fraction(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryScore:
    """How smooth the mean image is when a file is read in one way.

    Attributes:
        height, width, bit_order, padding: the reading; `frames` is how many frames it makes of the file.
        score: the lower one of the next two, from -1 to 1; 0 when the image is flat and nothing can be told.
        score_rows: correlation of pixels with those below.
        score_columns: correlation of pixels with those to the right; or, where lower, of just the pairs that lie in
            two different bytes: these are 15 pixels apart when the bit order is wrong.
    """

    height: int
    width: int
    frames: int
    bit_order: str
    padding: str
    score: float
    score_rows: float
    score_columns: float


def smoothness(mean_image: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Lag-1 correlations of an (H, W) image: of pixels with those below, and with those to the right.

    A direction in which nothing varies, or with fewer than two pixels, gives 0.
    """
    below = _correlation(mean_image[:-1], mean_image[1:])
    right = _correlation(mean_image[:, :-1], mean_image[:, 1:])
    return below, right


def rank_geometries(path: Path, extra: Iterable[tuple[int, int]] = ()) -> list[GeometryScore]:
    """Score every common geometry, and the `extra` (height, width), that divides a `.dat`, in both bit orders.

    Returns:
        Best first; empty when no geometry divides the file.

    Raises:
        FormatError: the file cannot be read as spikes at all.
    """
    path = Path(path)
    size = require_file(path, "spike")
    formats = [_plain_format(height, width) for height, width in dict.fromkeys((*COMMON, *extra))]
    scores = [score for fmt in formats if size % fmt.frame_bytes == 0 for score in _both_orders(path, fmt)]
    return sorted(scores, key=lambda score: score.score, reverse=True)


def check_geometry(path: Path, fmt: SpikeFormat) -> GeometryScore:
    """Score the declared reading of a spike file, and refuse it when another one is clearly right.

    At most 512 frames are read. In `.npy` and `.npz` files, which know their axes, there is nothing to compare.

    Raises:
        FormatError: a common geometry, or the other bit order, makes a much smoother picture; or as `open_spikes`.
    """
    path = Path(path)
    declared, other_order = _both_orders(path, fmt)
    others = [other_order] if path.suffix.lower() == ".dat" else []
    if others and declared.score < CREDIBLE:
        others += rank_geometries(path)
    best = max(others, key=lambda score: score.score, default=declared)
    if _beats(best, declared):
        raise FormatError(
            f"{path}: read as declared, {_described(declared)}, it makes no picture (smoothness {declared.score:.3f});"
            f" as {_described(best)} it does ({best.score:.3f})",
            f"correct the spike format of the manifest; all candidates: spk inspect {path}",
        )
    return declared


def _plain_format(height: int, width: int) -> SpikeFormat:
    padding: Literal["none", "frame"] = "frame" if height * width % 8 else "none"
    return SpikeFormat(height=height, width=width, rate_hz=_ANY_RATE, padding=padding)


def _both_orders(path: Path, fmt: SpikeFormat) -> tuple[GeometryScore, GeometryScore]:
    """The score of a format, and of the same with the other bit order; the file is read once."""
    stream = open_spikes(path, replace(fmt, valid_columns=None, flip="none"))
    counts = _count_some(stream)
    other = "msb" if fmt.bit_order == "lsb" else "lsb"
    reversed_bytes = np.pad(counts.ravel(), (0, -counts.size % 8)).reshape(-1, 8)[:, ::-1]
    other_counts = reversed_bytes.ravel()[: counts.size].reshape(counts.shape)
    return _score(counts, fmt, len(stream), fmt.bit_order), _score(other_counts, fmt, len(stream), other)


def _count_some(stream: SpikeStream) -> npt.NDArray[np.float64]:
    """Spikes of each pixel on file in up to `MAX_FRAMES` frames, in blocks spread over the recording."""
    starts = np.arange(0, len(stream), FRAMES_PER_BLOCK)
    most = MAX_FRAMES // FRAMES_PER_BLOCK
    chosen = starts[np.linspace(0, len(starts) - 1, min(len(starts), most)).astype(int)].tolist()
    counts = [stream.count(start, min(start + FRAMES_PER_BLOCK, len(stream))) for start in chosen]
    return np.sum(counts, axis=0, dtype=np.float64)


def _score(counts: npt.NDArray[np.float64], fmt: SpikeFormat, frames: int, bit_order: str) -> GeometryScore:
    first, last = fmt.columns
    image = counts[:, first:last]
    rows, columns = smoothness(image)
    is_seam = np.arange(1, counts.size + 1).reshape(counts.shape)[:, first : last - 1] % 8 == 0
    seams = _correlation(image[:, :-1][is_seam], image[:, 1:][is_seam])
    columns = min(columns, seams) if is_seam.any() else columns
    return GeometryScore(
        height=fmt.height,
        width=fmt.width,
        frames=frames,
        bit_order=bit_order,
        padding=fmt.padding,
        score=min(rows, columns),
        score_rows=rows,
        score_columns=columns,
    )


def _correlation(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    if first.size < 2:
        return 0.0
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def _beats(best: GeometryScore, declared: GeometryScore) -> bool:
    """Clearly: by a picture against noise, or, in dim or short streams whose pictures are noisy, by a wide margin."""
    clear = best.score >= CREDIBLE and best.score - declared.score > BEATEN_BY
    wide = best.score >= LEGIBLE and declared.score < best.score * 0.7
    return clear or wide


def _described(score: GeometryScore) -> str:
    return f"{score.frames} frames of {score.height}x{score.width} {score.bit_order}"
