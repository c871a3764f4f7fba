"""Statistics of voxel counts, exact and mergeable, and the normalization that follows from them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

NUM_VALUES = 65536
"""Counts are uint8 or uint16; a normalization says what becomes of each of them."""
NUM_BYTES = 256
"""Shortest histogram."""

_VALUES_AT_ONCE = 1 << 20
_FEW = 8
_SPARE = 4
"""Numbers behind a histogram that `histogram_kernel` may run over: it looks for 4 values at once."""

Transform = Literal["count", "log1p"]


@dataclass(frozen=True, eq=False, slots=True)
class CountHistogram:
    """How often each count occurs: int64, 256 numbers, or more where counts are larger.

    Adding histograms is exact, so any split of the work agrees.
    """

    bins: npt.NDArray[np.int64]

    @staticmethod
    def of(counts: npt.NDArray[np.integer], most: int = NUM_VALUES - 1) -> "CountHistogram":
        """The histogram of uint8 or uint16 counts of any shape.

        Args:
            most: what no count exceeds, where that is known: it is faster for few values.
        """
        if counts.dtype == np.uint16:
            most = min(most, int(counts.max(initial=0)))
        tally = CountTally(min(most, np.iinfo(counts.dtype).max))
        tally.add(counts)
        return tally.histogram

    @staticmethod
    def empty() -> "CountHistogram":
        return CountHistogram(np.zeros(NUM_BYTES, np.int64))

    def __add__(self, other: "CountHistogram") -> "CountHistogram":
        total = np.zeros(max(len(self.bins), len(other.bins)), np.int64)
        for bins in (self.bins, other.bins):
            total[: len(bins)] += bins
        return CountHistogram(total)

    @property
    def num_values(self) -> int:
        return int(self.bins.sum())

    def mean_std(self, transform: Transform) -> tuple[float, float]:
        """Mean and population standard deviation of the transformed counts, in float64.

        Raises:
            ValueError: the histogram is empty.
        """
        if not self.num_values:
            raise ValueError("no counts, so no mean")
        values = transformed(transform, len(self.bins))
        weights = self.bins / self.num_values
        mean = float((weights * values).sum())
        return mean, float(np.sqrt((weights * (values - mean) ** 2).sum()))


class CountTally:
    """A histogram that is being made, of arrays one after the other that are not kept.

    Args:
        most: what no count exceeds; it is faster for few values.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bins = np.zeros(max(NUM_BYTES, most + 1) + _SPARE, np.int64)

    def add(self, counts: npt.NDArray[np.integer]) -> None:
        """Count the values of an array of uint8 or uint16 counts of any shape."""
        if counts.dtype == np.uint8:
            _add_bytes(self._bins, np.ascontiguousarray(counts).reshape(-1), self._most)
        elif counts.dtype == np.uint16:
            _add_words(self._bins, counts.reshape(-1))
        else:
            raise ValueError(f"counts are uint8 or uint16, not {counts.dtype}")

    @property
    def histogram(self) -> CountHistogram:
        return CountHistogram(self._bins[:-_SPARE].copy())


def _add_bytes(bins: npt.NDArray[np.int64], flat: npt.NDArray[np.uint8], most: int) -> None:
    if most > _FEW:
        most = min(most, int(flat.max(initial=0)))
    _compiled()(flat, most, bins)


@functools.cache
def _compiled() -> Callable[..., None]:
    from pipeline.histogram_kernel import count_values  # numba: 0.3 s that few commands need to pay

    return count_values


def _add_words(bins: npt.NDArray[np.int64], flat: npt.NDArray[np.uint16]) -> None:
    for first in range(0, flat.size, _VALUES_AT_ONCE):  # bincount turns each value into eight bytes
        bins += np.bincount(flat[first : first + _VALUES_AT_ONCE], minlength=len(bins))


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """What turns stored counts into network input: (transform(count) - mean) / std, of the train split."""

    num_bins: int
    transform: Transform
    mean: float
    std: float
    num_values: int
    split: str = "train"

    def __post_init__(self) -> None:
        if self.transform not in get_args(Transform):
            raise ValueError(f"transform: expected one of {get_args(Transform)}, got {self.transform!r}")
        if not self.std > 0 or not np.isfinite([self.mean, self.std]).all():
            raise ValueError(f"mean {self.mean} and std {self.std} cannot normalize")

    def table(self) -> npt.NDArray[np.float32]:
        """The normalized value of every count: (65536,) float32, to be indexed with uint8 or uint16 counts."""
        return ((transformed(self.transform, NUM_VALUES) - self.mean) / self.std).astype(np.float32)


def transformed(transform: Transform, num_values: int) -> npt.NDArray[np.float64]:
    """The transform of the counts 0, 1, ..., num_values - 1, in float64."""
    counts = np.arange(num_values, dtype=np.float64)
    return np.log1p(counts) if transform == "log1p" else counts


def stats_attributes(histogram: CountHistogram, *, num_bins: int, split: str) -> dict[str, Any]:
    """What the store keeps of a histogram: the integers, and mean and std of counts and of log1p(counts).

    Raises:
        ValueError: the histogram is empty.
    """
    mean, std = histogram.mean_std("count")
    log1p_mean, log1p_std = histogram.mean_std("log1p")
    return {
        "num_bins": num_bins,
        "split": split,
        "transform": "log1p",
        "num_values": histogram.num_values,
        "histogram": histogram.bins.tolist(),
        "count": {"mean": mean, "std": std},
        "log1p": {"mean": log1p_mean, "std": log1p_std},
    }


def normalization_from(attributes: dict[str, Any], transform: Transform | None = None) -> Normalization:
    """Read `stats_attributes` back as the normalization by the stored transform, or by another one."""
    transform = transform or attributes["transform"]
    return Normalization(
        num_bins=attributes["num_bins"],
        transform=transform,
        mean=attributes[transform]["mean"],
        std=attributes[transform]["std"],
        num_values=attributes["num_values"],
        split=attributes["split"],
    )
