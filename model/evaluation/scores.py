"""Scores of single frames and the honest means over them.

A frame identical to the sharp one has an infinite PSNR and would make every mean infinite. Such frames are counted
(`identical`), left out of the mean of PSNR, and kept in the mean of SSIM; the mean of PSNR is infinite only where
all frames are identical. JSON has no infinity: an infinite value is written as null beside that count. A value that
is not defined for a frame is NaN, and left out of the means of its metric.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.evaluation.protocols import Protocol


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One method on one frame under one protocol.

    Attributes:
        values: by metric; `psnr` in dB, `inf` where the frame is identical to the sharp one; NaN where not defined.
    """

    sequence: str
    frame: str
    index: int
    method: str
    protocol: str
    values: Mapping[str, float]

    @property
    def psnr(self) -> float:
        return self.values["psnr"]

    @property
    def ssim(self) -> float:
        return self.values["ssim"]


@dataclass(frozen=True, slots=True)
class MeanScore:
    """The means of one method under one protocol; NaN without frames.

    Attributes:
        identical: frames with an infinite PSNR.
        over_frames: by metric, every frame weighs alike.
        over_sequences: by metric, every sequence weighs alike.
    """

    method: str
    protocol: Protocol
    frames: int
    sequences: int
    identical: int
    over_frames: Mapping[str, float]
    over_sequences: Mapping[str, float]

    @property
    def values(self) -> Mapping[str, float]:
        """The protocol's numbers, by metric."""
        return self.over_frames if self.protocol.averaging == "frames" else self.over_sequences

    @property
    def psnr(self) -> float:
        return self.values["psnr"]

    @property
    def ssim(self) -> float:
        return self.values["ssim"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a PSNR that is infinite or does not exist is null."""
        return {
            **_finite(self.values),
            "frames": self.frames,
            "sequences": self.sequences,
            "identical": self.identical,
            **_finite(self.over_frames, "frame_"),
            **_finite(self.over_sequences, "sequence_"),
        }


def mean_score(method: str, protocol: Protocol, scores: Iterable[FrameScore]) -> MeanScore:
    """Average the scores of `method` under `protocol` over all frames, and over the means of its sequences."""
    by_sequence: dict[str, list[FrameScore]] = {}
    for score in scores:
        if (score.method, score.protocol) == (method, protocol.name):
            by_sequence.setdefault(score.sequence, []).append(score)
    groups = list(by_sequence.values())
    frames = [score for group in groups for score in group]
    return MeanScore(
        method=method,
        protocol=protocol,
        frames=len(frames),
        sequences=len(groups),
        identical=sum(math.isinf(score.psnr) for score in frames),
        over_frames={name: _mean_of(name, frames) for name in protocol.metrics},
        over_sequences={
            name: finite_mean([_mean_of(name, group) for group in groups]) for name in protocol.metrics
        },
    )


def _mean_of(metric: str, scores: Iterable[FrameScore]) -> float:
    return finite_mean([score.values[metric] for score in scores])


def finite_mean(values: Sequence[float]) -> float:
    """The mean of the finite values; infinite where there are only infinite ones, NaN where none is defined."""
    defined = [value for value in values if not math.isnan(value)]
    finite = [value for value in defined if math.isfinite(value)]
    return math.inf if defined and not finite else mean(finite)


def mean(values: Sequence[float]) -> float:
    """The correctly rounded mean, independent of the order; NaN without values."""
    return math.fsum(values) / len(values) if values else math.nan


def finite_or_none(value: float) -> float | None:
    """`value`, or None where JSON cannot hold it."""
    return value if math.isfinite(value) else None


def _finite(values: Mapping[str, float], prefix: str = "") -> dict[str, float | None]:
    return {f"{prefix}{name}": finite_or_none(value) for name, value in values.items()}
