"""How much of a picture a spike stream makes when it is read in one way.

Neighbouring pixels of a scene are alike, so the mean image read with the right height, width and bit order is smooth:
its lag-1 correlation is 0.98 or more along rows and columns, and falls to 0.90 or less in one of the directions when
read wrongly. What is smooth and wrong is told by breaks: rows read side by side, head columns read as pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.physics import correlation
from pipeline.spike_format import SpikeFormat

FOLD = 0.1
BREAK = 0.3
"""By which the correlation of two columns falls where rows are put side by side, and at a head."""
MOST_SIDE_BY_SIDE = 8
"""Rows that are looked for in one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryScore:
    """How smooth the mean image is when a file is read in one way.

    Attributes:
        reading: the format; its rate and its flip, the usual one, are not what the bits show.
        frames: how many frames it makes of the file.
        score: the lower one of the next two, from -1 to 1; half of it when the stream shows another frame period, or
            the picture breaks where two rows are read as one; 0 when the image is flat and nothing can be told.
        score_rows: correlation of pixels with those below.
        score_columns: correlation of pixels with those to the right; or, where lower, of just the pairs that lie in
            two different bytes: these are 15 pixels apart when the bit order is wrong.
        row_ends: how many times more pixels differ from the next one at the end of a row, where the other side of the
            picture follows, than elsewhere (mean squares); 1 or less when rows do not end there.
        in_period: whether the stream shows this reading's frame period; None when it shows none.
        folded: whether several rows are read as one, side by side.
    """

    reading: SpikeFormat
    frames: int
    score: float
    score_rows: float
    score_columns: float
    row_ends: float
    in_period: bool | None
    folded: bool = False

    def __str__(self) -> str:
        fmt = self.reading
        padding = "" if fmt.padding == "none" else f" with padding {fmt.padding}"
        return f"{self.frames} frames of {self.size} {fmt.bit_order}{padding}"

    @property
    def smooth(self) -> float:
        """The lower one of the two correlations."""
        return min(self.score_rows, self.score_columns)

    @property
    def size(self) -> str:
        """Height and width, and how much of the width is pixels where it is not all."""
        fmt = self.reading
        head = f" ({fmt.valid_width} valid)" if fmt.valid_width != fmt.width else ""
        return f"{fmt.height}x{fmt.width}{head}"

    def settings(self, prefix: str = "spikes.") -> str:
        """The `key=value` words that declare this reading."""
        fmt = self.reading
        words = {
            "height": fmt.height,
            "width": fmt.width,
            "bit_order": fmt.bit_order,
            "padding": fmt.padding,
            "valid_columns": [list(span) for span in fmt.columns] if fmt.valid_columns else "null",
        }
        return " ".join(f"{prefix}{key}={value}".replace(" ", "") for key, value in words.items())


def smoothness(mean_image: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Lag-1 correlations of an (H, W) image: of pixels with those below, and with those to the right.

    A direction in which nothing varies, or with fewer than two pixels, gives 0.
    """
    below = correlation(mean_image[:-1], mean_image[1:])
    right = correlation(mean_image[:, :-1], mean_image[:, 1:])
    return below, right


def score_reading(
    counts: npt.NDArray[np.float64], fmt: SpikeFormat, frames: int, in_period: bool | None
) -> GeometryScore:
    """Score the picture that a reading makes.

    Args:
        counts: (height, width) spikes of each pixel on file, head columns included.
        fmt: the reading.
        frames: how many frames it makes of the file.
        in_period: whether the stream shows its frame period; None when it shows none.
    """
    valid = np.concatenate([np.arange(first, stop) for first, stop in fmt.columns])
    image = counts[:, valid]
    rows, columns = smoothness(image)
    byte = (np.arange(fmt.height)[:, None] * fmt.width + valid) // 8
    is_seam = byte[:, :-1] != byte[:, 1:]
    if fmt.frame_bits % 8 == 0 and is_seam.any():
        columns = min(columns, correlation(image[:, :-1][is_seam], image[:, 1:][is_seam]))
    score, folded = min(rows, columns), _is_folded(image, rows, columns)
    return GeometryScore(
        reading=fmt,
        frames=frames,
        score=score / 2 if (in_period is False or folded) and score > 0 else score,
        score_rows=rows,
        score_columns=columns,
        row_ends=_row_ends(counts),
        in_period=in_period,
        folded=folded,
    )


def _row_ends(counts: npt.NDArray[np.float64]) -> float:
    differences = np.diff(counts.ravel()) ** 2
    usual = float(differences.mean()) if differences.size else 0.0
    width = counts.shape[1]
    ends = differences[width - 1 :: width]
    return float(ends.mean()) / usual if usual > 0 and ends.size else 0.0


def _is_folded(image: npt.NDArray[np.float64], rows: float, columns: float) -> bool:
    """Whether several rows are read as one.

    The picture then breaks at equal parts of its width, and nowhere as badly; and what lies one part farther on
    resembles a pixel more than what lies below it, which is several rows away.

    Args:
        rows, columns: the lag-1 correlations of the image.
    """
    width, pixels = image.shape[1], image.ravel()
    alike = _of_neighbouring_columns(image)
    for parts in range(2, MOST_SIDE_BY_SIDE + 1):
        part = width // parts
        edges = np.arange(1, parts) * part - 1
        others = np.delete(alike, edges) if width % parts == 0 else alike[:0]
        if (
            others.size
            and alike[edges].max() < min(others.min(), columns - FOLD)
            and correlation(pixels[:-part], pixels[part:]) > rows
        ):
            return True
    return False


def _of_neighbouring_columns(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Correlation of each column but the last with the next one: (W - 1,), 1 where one of the two is flat."""
    centred = image - image.mean(axis=0)
    power = (centred**2).sum(axis=0)
    norm = np.sqrt(power[:-1] * power[1:])
    products = (centred[:, :-1] * centred[:, 1:]).sum(axis=0)
    return np.divide(products, norm, out=np.ones_like(norm), where=norm > 0)


def has_head(counts: npt.NDArray[np.float64], fmt: SpikeFormat) -> bool:
    """Whether the columns that are said to be no pixels do not continue the picture beside them."""
    inner = [(first, stop) for first, stop in fmt.columns if stop < fmt.width]
    beside = [correlation(counts[:, stop - 1], counts[:, stop]) for _, stop in inner]
    usual = [correlation(counts[:, stop - 2], counts[:, stop - 1]) for _, stop in inner]
    return all(b < u - BREAK for b, u in zip(beside, usual, strict=True))
