"""Is the mean of paired differences more than chance? Bootstrap intervals that respect which frames belong together.

The frames of a sequence share their scene, its light and its motion, so their differences are alike: a thousand frames
of ten sequences say little more than ten numbers. What is drawn again, with replacement, are therefore whole sequences
(the cluster bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8), and the
interval says what to expect of other sequences like these. Below `FEWEST_SEQUENCES` there is nothing to draw from. Then
blocks of neighbouring frames are drawn within each sequence (the circular block bootstrap; Politis and Romano, 1992),
and the interval speaks of these very sequences only.

Intervals are percentile intervals, widened for few units: a bootstrap knows the spread of n units too small by
sqrt((n - 1) / n) and treats it as exact, which Student's t does not (Hesterberg, "What Teachers Should Know About the
Bootstrap", 2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""How often the intervals hold the truth."""
FEWEST_SEQUENCES = 3
_NORMAL_FROM = 1000
"""Degrees of freedom from which Student's t is the normal distribution, to three digits of its quantiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean difference and its interval, NaN where there is too little to draw from."""

    mean: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def is_above_zero(self) -> bool:
        """Whether all of the interval is."""
        return self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether all of the interval is."""
        return self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedEstimates:
    """What differences of frames say.

    Attributes:
        frames: mean over all frames.
        sequences: mean over the means of the sequences.
        per_sequence: mean over the frames of each, by blocks of its frames.
        unit: what was drawn for the first two: "sequences", or "blocks" of frames.
        samples, seed: how often, and of what.
    """

    frames: Estimate
    sequences: Estimate
    per_sequence: tuple[Estimate, ...]
    unit: Literal["sequences", "blocks"]
    samples: int
    seed: int


def estimate(differences: Sequence[Floats], *, samples: int = 10_000, seed: int = 0) -> PairedEstimates:
    """Means of paired differences with their intervals; the same for the same arguments.

    Args:
        differences: of each sequence (n,), finite, in order of time; n may differ.
        samples: how often to draw.
        seed: of what is drawn.

    Raises:
        ValueError: a sequence without frames, no sequence, or no samples.
    """
    if not differences or min(map(len, differences)) == 0 or samples < 1:
        lengths = [len(one) for one in differences]
        raise ValueError(f"sequences of {lengths} frames drawn {samples} times give no estimate")
    streams = np.random.SeedSequence(seed).spawn(len(differences) + 1)
    blocks = [
        _Drawn.by_blocks(one, samples, np.random.default_rng(stream))
        for one, stream in zip(differences, streams[1:], strict=True)
    ]
    per_sequence = tuple(one.estimate(float(d.mean())) for one, d in zip(blocks, differences, strict=True))
    weights = np.array([len(one) for one in differences], np.float64)
    means = np.array([one.mean() for one in differences])
    enough = len(differences) >= FEWEST_SEQUENCES
    if enough:
        drawn = np.random.default_rng(streams[0]).integers(len(means), size=(samples, len(means)))
        by_frames, by_sequences = (
            _Drawn.by_sequences(means, w, drawn) for w in (weights, np.ones_like(means))
        )
    else:
        by_frames, by_sequences = (_Drawn.together(blocks, w) for w in (weights, np.ones_like(means)))
    return PairedEstimates(
        frames=by_frames.estimate(float(np.average(means, weights=weights))),
        sequences=by_sequences.estimate(float(means.mean())),
        per_sequence=per_sequence,
        unit="sequences" if enough else "blocks",
        samples=samples,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Means of what was drawn.

    Attributes:
        means: (samples,).
        units: how many were drawn each time.
        freedom: how many of them are free to vary about the means that they are compared with.
    """

    means: Floats
    units: int
    freedom: int

    @staticmethod
    def by_sequences(means: Floats, weights: Floats, drawn: npt.NDArray[np.int64]) -> "_Drawn":
        """Whole sequences, each with its weight; `drawn` is (samples, sequences)."""
        found = (means * weights)[drawn].sum(1) / weights[drawn].sum(1)
        return _Drawn(found, len(means), len(means) - 1)

    @staticmethod
    def by_blocks(values: Floats, samples: int, rng: np.random.Generator) -> "_Drawn":
        """Blocks of about sqrt(n) neighbours, the last frame's neighbour being the first."""
        length = math.isqrt(len(values) - 1) + 1
        count = len(values) // length
        sums = np.convolve(np.concatenate((values, values[: length - 1])), np.ones(length), "valid") / length
        found = sums[rng.integers(len(values), size=(samples, count))].mean(1)
        return _Drawn(found, count, count - 1)

    @staticmethod
    def together(parts: Sequence["_Drawn"], weights: Floats) -> "_Drawn":
        """The weighted mean of sequences whose blocks were drawn apart."""
        found = np.average([part.means for part in parts], axis=0, weights=weights)
        return _Drawn(found, sum(part.units for part in parts), sum(part.freedom for part in parts))

    def estimate(self, mean: float) -> Estimate:
        """The percentile interval about `mean`, widened for few units."""
        if self.freedom < 1:
            return Estimate(mean=mean, low=math.nan, high=math.nan)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(self.means, (tail, 1 - tail))
        wider = student_quantile(1 - tail, self.freedom) / NormalDist().inv_cdf(1 - tail)
        wider *= math.sqrt(self.units / self.freedom)
        return Estimate(
            mean=mean, low=float(mean + wider * (low - mean)), high=float(mean + wider * (high - mean))
        )


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t at a probability above 1/2, by bisection.

    With whole degrees of freedom the distribution function is a finite sum (Abramowitz and Stegun, 1964, 26.7.3 and
    26.7.4).
    """
    if freedom >= _NORMAL_FROM:
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + _within(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """The probability that |t| < sqrt(freedom) tan(angle)."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
