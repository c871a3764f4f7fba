"""Statistics of voxel counts, exact and mergeable, and the normalization that follows from them."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

NUM_VALUES = 256
"""Counts are uint8, so a histogram of 256 integers says everything about their distribution."""

_VALUES_AT_ONCE = 1 << 20

Transform = Literal["count", "log1p"]


@dataclass(frozen=True, eq=False, slots=True)
class CountHistogram:
    """How often each count occurs: (256,) int64. Adding histograms is exact, so any split of the work agrees."""

    bins: npt.NDArray[np.int64]

    @staticmethod
    def of(counts: npt.NDArray[np.uint8]) -> "CountHistogram":
        """The histogram of uint8 counts of any shape."""
        if counts.dtype != np.uint8:
            raise ValueError(f"counts are uint8, not {counts.dtype}")
        flat = counts.reshape(-1)
        bins = np.zeros(NUM_VALUES, np.int64)
        for first in range(0, flat.size, _VALUES_AT_ONCE):  # bincount turns each byte into eight
            bins += np.bincount(flat[first : first + _VALUES_AT_ONCE], minlength=NUM_VALUES)
        return CountHistogram(bins)

    @staticmethod
    def empty() -> "CountHistogram":
        return CountHistogram(np.zeros(NUM_VALUES, np.int64))

    def __add__(self, other: "CountHistogram") -> "CountHistogram":
        return CountHistogram(self.bins + other.bins)

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
        values = transformed(transform)
        weights = self.bins / self.num_values
        mean = float((weights * values).sum())
        return mean, float(np.sqrt((weights * (values - mean) ** 2).sum()))


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
        """The normalized value of every count: (256,) float32, to be indexed with uint8 counts."""
        return ((transformed(self.transform) - self.mean) / self.std).astype(np.float32)


def transformed(transform: Transform) -> npt.NDArray[np.float64]:
    """The transform of the counts 0..255: (256,) float64."""
    counts = np.arange(NUM_VALUES, dtype=np.float64)
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
