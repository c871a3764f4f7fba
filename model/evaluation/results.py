"""What an evaluation found, as numbers, JSON and tables."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from model.evaluation.judge import RESTORED
from model.evaluation.scores import FrameScore, MeanScore, finite_or_none, mean_score
from model.metrics import PROTOCOL, PROTOCOL_TEXT


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Every score, and what was scored.

    Attributes:
        split: of the store.
        methods: in the order of the tables; the first is `restored`.
        frames: frames restored, of each sequence, in order.
        scores: of every frame that has a sharp one.
        provenance: checkpoint, store, settings and versions, as plain values.
    """

    split: str
    methods: tuple[str, ...]
    frames: Mapping[str, int]
    scores: tuple[FrameScore, ...]
    provenance: Mapping[str, Any]

    @property
    def means(self) -> dict[str, MeanScore]:
        """Over the whole split, by method."""
        return {method: mean_score(method, self.scores) for method in self.methods}

    def sequence_means(self, sequence: str) -> dict[str, MeanScore]:
        """Over one sequence, by method."""
        scores = [score for score in self.scores if score.sequence == sequence]
        return {method: mean_score(method, scores) for method in self.methods}

    @property
    def num_frames(self) -> int:
        """Frames restored."""
        return sum(self.frames.values())

    @property
    def unscored(self) -> int:
        """Frames restored that have no sharp frame to be compared with."""
        return self.num_frames - self.means[RESTORED].frames

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "protocol": PROTOCOL,
            "definition": PROTOCOL_TEXT,
            "split": self.split,
            "sequences": len(self.frames),
            "frames": self.num_frames,
            "unscored_frames": self.unscored,
            "infinite_psnr": "identical frames are counted, left out of the mean PSNR, and null where all are",
            "methods": {method: mean.to_json() for method, mean in self.means.items()},
            **self.provenance,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a method: name, psnr and ssim, means over all frames; null where infinite or without frames."""
        return [
            {"name": method, "psnr": finite_or_none(mean.psnr), "ssim": finite_or_none(mean.ssim)}
            for method, mean in self.means.items()
        ]

    def per_frame_csv(self) -> str:
        """One line a frame and method, tidy; `inf` is a PSNR of identical frames."""
        header = ("protocol", "split", "sequence", "frame", "index", "method", "psnr", "ssim")
        lines = (
            (PROTOCOL, self.split, s.sequence, s.frame, s.index, s.method, f"{s.psnr:.6f}", f"{s.ssim:.8f}")
            for s in self.scores
        )
        return _csv(header, lines)

    def per_sequence_csv(self) -> str:
        """One line a sequence and method: how many frames, and the means over those scored."""
        header = ("protocol", "split", "sequence", "frames", "scored", "identical", "method", "psnr", "ssim")
        lines = (
            (
                PROTOCOL,
                self.split,
                name,
                frames,
                m.frames,
                m.identical,
                method,
                f"{m.psnr:.6f}",
                f"{m.ssim:.8f}",
            )
            for name, frames in self.frames.items()
            for method, m in self.sequence_means(name).items()
        )
        return _csv(header, lines)


def _csv(header: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()
