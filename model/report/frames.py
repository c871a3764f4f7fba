"""The scored frames of an evaluation, one by one: what plots, lists and the filmstrip go by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from model.evaluation.methods import BLURRY, RESTORED
from model.evaluation.results import Results
from model.report.marks import gain_over


@dataclass(frozen=True, slots=True)
class FrameRow:
    """The PSNR of one frame, in dB, by method."""

    sequence: str
    frame: str
    index: int
    psnrs: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.sequence} / {self.frame}"

    @property
    def psnr(self) -> float:
        return self.psnrs.get(RESTORED, math.nan)

    @property
    def gain(self) -> float | None:
        """Over the blurry frame; None where one of the two is not finite."""
        return gain_over(self.psnr, self.psnrs.get(BLURRY, math.nan))

    @property
    def won(self) -> bool:
        """Whether it is better than the blurry frame."""
        return self.psnr > self.psnrs.get(BLURRY, math.nan)


def frame_rows(results: Results) -> list[FrameRow]:
    """The frames that have a PSNR, in order; none where no protocol gives one."""
    protocol = results.psnr_protocol
    if protocol is None:
        return []
    found: dict[tuple[str, int], tuple[str, dict[str, float]]] = {}
    for score in results.scores_by(protocol):
        _, psnrs = found.setdefault((score.sequence, score.index), (score.frame, {}))
        psnrs[score.method] = score.psnr
    rows = [FrameRow(sequence, frame, index, psnrs) for (sequence, index), (frame, psnrs) in found.items()]
    return [row for row in rows if not math.isnan(row.psnr)]
