"""What an evaluation found, as numbers, JSON and tables."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.evaluation.data_quality import DataQuality
from model.evaluation.methods import RESTORED
from model.evaluation.protocols import Protocol
from model.evaluation.scores import FrameScore, MeanScore, finite_or_none, mean_score
from model.evaluation.worth import Difference, differences, ignores_spikes, worth_in_words


def weights_text(step: int | None) -> str:
    """Which weights a network has, for people."""
    return "published weights" if step is None else f"step {step:,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Every score, and what was scored.

    Attributes:
        split: of the store.
        protocols: that frames were scored by; the first is the one that pictures and plots go by.
        methods: in the order of the tables; the first is `restored`.
        frames: frames restored, of each sequence, in order.
        scores: of every frame that has a sharp one, by every protocol.
        provenance: checkpoint, store, settings, versions and command, as plain values.
        ablated: the methods that are the network of `restored` with other spikes.
        quality: of the data, by sequence.
    """

    split: str
    protocols: tuple[Protocol, ...]
    methods: tuple[str, ...]
    frames: Mapping[str, int]
    scores: tuple[FrameScore, ...]
    provenance: Mapping[str, Any]
    ablated: tuple[str, ...] = ()
    quality: Mapping[str, DataQuality] = field(default_factory=dict)

    @property
    def psnr_protocol(self) -> Protocol | None:
        """The first protocol that gives a PSNR: by it frames are compared; None where no protocol does."""
        return next((protocol for protocol in self.protocols if "psnr" in protocol.metrics), None)

    def means(self, protocol: Protocol | None = None) -> dict[str, MeanScore]:
        """Over the whole split, by method; by the first protocol unless another is given."""
        return self._means(protocol, self.scores)

    def sequence_means(self, sequence: str, protocol: Protocol | None = None) -> dict[str, MeanScore]:
        """Over one sequence, by method."""
        return self._means(protocol, [score for score in self.scores if score.sequence == sequence])

    def _means(self, protocol: Protocol | None, scores: Iterable[FrameScore]) -> dict[str, MeanScore]:
        scores = self.scores_by(protocol, scores)
        return {method: mean_score(method, protocol or self.protocols[0], scores) for method in self.methods}

    def scores_by(
        self, protocol: Protocol | None = None, scores: Iterable[FrameScore] | None = None
    ) -> list[FrameScore]:
        """The scores by one protocol, the first unless another is given."""
        name = (protocol or self.protocols[0]).name
        return [score for score in (self.scores if scores is None else scores) if score.protocol == name]

    def differences(self, protocol: Protocol | None = None) -> dict[str, Difference]:
        """Of the rows with other spikes to `restored`, by the first protocol unless another is given."""
        return differences(protocol or self.protocols[0], self.ablated, self.scores)

    def worth(self, protocol: Protocol | None = None) -> dict[str, Any]:
        """What the spikes are worth: whether they are `ignored` (None: not known), and a sentence as `text`."""
        found = self.differences(protocol)
        return {
            "ignored": ignores_spikes(found),
            "text": worth_in_words(protocol or self.protocols[0], found),
            "differences": {name: difference.to_json() for name, difference in found.items()},
        }

    @property
    def num_frames(self) -> int:
        """Frames restored."""
        return sum(self.frames.values())

    @property
    def unscored(self) -> int:
        """Frames restored that have no sharp frame to be compared with."""
        return self.num_frames - self.means()[RESTORED].frames

    def summary(self, protocol: Protocol) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "protocol": protocol.name,
            "definition": protocol.text,
            "averaging": protocol.averaging,
            "split": self.split,
            "sequences": len(self.frames),
            "frames": self.num_frames,
            "unscored_frames": self.num_frames - self.means(protocol)[RESTORED].frames,
            "infinite_psnr": "identical frames are counted, left out of the mean PSNR, and null where all are",
            "methods": {method: mean.to_json() for method, mean in self.means(protocol).items()},
            **({"spikes": self.worth(protocol)} if self.ablated else {}),
            **self.provenance,
        }

    def rows(self, protocol: Protocol | None = None) -> list[dict[str, Any]]:
        """One row a method: its name and the protocol's numbers; null where infinite or without frames."""
        return [
            {"name": method, **{name: finite_or_none(value) for name, value in mean.values.items()}}
            for method, mean in self.means(protocol).items()
        ]

    def per_frame_csv(self, protocol: Protocol) -> str:
        """One line a frame and method, tidy; `inf` is a PSNR of identical frames."""
        header = ("protocol", "split", "sequence", "frame", "index", "method", *protocol.metrics)
        lines = (
            (
                protocol.name,
                self.split,
                s.sequence,
                s.frame,
                s.index,
                s.method,
                *_decimals(protocol, s.values),
            )
            for s in self.scores_by(protocol)
        )
        return _csv(header, lines)

    def per_sequence_csv(self, protocol: Protocol) -> str:
        """One line a sequence and method: how many frames, and the means over those scored."""
        header = (
            "protocol",
            "split",
            "sequence",
            "frames",
            "scored",
            "identical",
            "method",
            *protocol.metrics,
        )
        lines = (
            (
                protocol.name,
                self.split,
                name,
                frames,
                m.frames,
                m.identical,
                method,
                *_decimals(protocol, m.over_frames),
            )
            for name, frames in self.frames.items()
            for method, m in self.sequence_means(name, protocol).items()
        )
        return _csv(header, lines)


def _decimals(protocol: Protocol, values: Mapping[str, float]) -> list[str]:
    """One cell a metric, empty where it is not defined."""
    return [
        "" if math.isnan(values[name]) else f"{values[name]:.{6 if name.startswith('psnr') else 8}f}"
        for name in protocol.metrics
    ]


def _csv(header: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()
