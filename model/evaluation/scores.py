"""Scores of single frames and the honest means over them.

A frame identical to the sharp one has an infinite PSNR and would make every mean infinite. Such frames are counted
(`identical`), left out of the mean of PSNR, and kept in the mean of SSIM; the mean of PSNR is infinite only where
all frames are identical. JSON has no infinity: an infinite value is written as null beside that count.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One method on one frame; psnr in dB, `inf` where the frame is identical to the sharp one."""

    sequence: str
    frame: str
    index: int
    method: str
    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class MeanScore:
    """The mean of one method, over all frames and over the means of the sequences; NaN without frames."""

    method: str
    frames: int
    sequences: int
    identical: int
    psnr: float
    ssim: float
    sequence_psnr: float
    sequence_ssim: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a PSNR that is infinite or does not exist is null."""
        return {
            "psnr": finite_or_none(self.psnr),
            "ssim": finite_or_none(self.ssim),
            "frames": self.frames,
            "sequences": self.sequences,
            "identical": self.identical,
            "sequence_psnr": finite_or_none(self.sequence_psnr),
            "sequence_ssim": finite_or_none(self.sequence_ssim),
        }


def mean_score(method: str, scores: Iterable[FrameScore]) -> MeanScore:
    """Average the scores of `method` over all frames, and over the means of its sequences."""
    by_sequence: dict[str, list[FrameScore]] = {}
    for score in scores:
        if score.method == method:
            by_sequence.setdefault(score.sequence, []).append(score)
    groups = list(by_sequence.values())
    frames = [score for group in groups for score in group]
    return MeanScore(
        method=method,
        frames=len(frames),
        sequences=len(groups),
        identical=sum(math.isinf(score.psnr) for score in frames),
        psnr=mean_psnr([score.psnr for score in frames]),
        ssim=mean([score.ssim for score in frames]),
        sequence_psnr=mean_psnr([mean_psnr([score.psnr for score in group]) for group in groups]),
        sequence_ssim=mean([mean([score.ssim for score in group]) for group in groups]),
    )


def mean_psnr(values: Sequence[float]) -> float:
    """The mean of the finite values; infinite where there are values and all are, NaN without values."""
    finite = [value for value in values if not math.isinf(value)]
    return math.inf if values and not finite else mean(finite)


def mean(values: Sequence[float]) -> float:
    """The correctly rounded mean, independent of the order; NaN without values."""
    return math.fsum(values) / len(values) if values else math.nan


def finite_or_none(value: float) -> float | None:
    """`value`, or None where JSON cannot hold it."""
    return value if math.isfinite(value) else None
