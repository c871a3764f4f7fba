"""Two methods' scores of the same frames, paired, and what their difference is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model.evaluation.paired import LEVEL, Estimate, Floats, PairedEstimates
from model.evaluation.scored_frames import Frame, ScoredFrames
from model.evaluation.scores import finite_or_none
from pipeline.errors import UsageError, WorseError

Better = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "equal", "not told from chance", "too few frames to tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedSequence:
    """The frames of a sequence that both have: finite or infinite values (n,), in order of time."""

    name: str
    a: Floats
    b: Floats

    @property
    def difference(self) -> Floats:
        """B - A, (n,); 0 where both are infinite."""
        equal = self.a == self.b  # of infinities, whose difference is not a number
        return np.where(equal, 0.0, np.subtract(self.b, self.a, where=~equal, out=np.zeros_like(self.a)))

    @property
    def finite_difference(self) -> Floats:
        """Without the frames that one of them has restored exactly."""
        return self.difference[np.isfinite(self.difference)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        a, b: what was compared.
        better: whether higher or lower values are.
        sequences: paired frames.
        left_out: frames that were not paired: those that only A or only B has, and those not defined in both.
        estimates: of B - A, in the metric's unit; frames of infinite difference are left out.
        compared: the names of the sequences that the estimates are of, in their order.
    """

    a: ScoredFrames
    b: ScoredFrames
    better: Better
    sequences: tuple[PairedSequence, ...]
    left_out: Mapping[str, int]
    estimates: PairedEstimates
    compared: tuple[str, ...]

    @property
    def metric(self) -> str:
        """A column of per_frame.csv."""
        return self.b.metric

    @property
    def sign(self) -> int:
        """1 where higher values are better, -1 where lower ones are."""
        return 1 if self.better == "higher" else -1

    @property
    def unit(self) -> str:
        """Of the metric, with a space before it; empty where it has none."""
        return " dB" if self.metric.startswith("psnr") else ""

    @property
    def averaging(self) -> str:
        """What the protocol's own number is the mean of: "frames" or "sequences"."""
        return self.b.summary.get("averaging", "frames")

    @property
    def difference(self) -> Estimate:
        """B - A by the protocol's own mean."""
        return self.estimates.sequences if self.averaging == "sequences" else self.estimates.frames

    @property
    def differences(self) -> Floats:
        """B - A of every frame, with infinities."""
        return np.concatenate([sequence.difference for sequence in self.sequences])

    @property
    def shares(self) -> dict[str, float]:
        """Parts of the frames that B has `won`, `tied` and `lost`."""
        gains = self.sign * self.differences
        return {
            "won": float((gains > 0).mean()),
            "tied": float((gains == 0).mean()),
            "lost": float((gains < 0).mean()),
        }

    @property
    def infinite(self) -> dict[str, int]:
        """Frames that only one of them has restored exactly."""
        gains = self.sign * self.differences
        return {"a": int(np.isneginf(gains).sum()), "b": int(np.isposinf(gains).sum())}

    @property
    def verdict(self) -> Verdict:
        """What B is beside A."""
        if not self.differences.any():
            return "equal"
        if not self.difference.is_known:
            return "too few frames to tell"
        if self.difference.is_above_zero or self.difference.is_below_zero:
            return "better" if self.difference.is_above_zero == (self.sign > 0) else "worse"
        return "not told from chance"

    def check(self, threshold: float) -> None:
        """The gate: nothing, unless B is worse by more than `threshold` on average, and by more than chance.

        Both have to hold: the mean difference is beyond the threshold, and all of its interval is on the worse side of
        zero. So a difference without noise is seen however small it is, and noise alone fails one time in forty.

        Raises:
            WorseError: B is.
            UsageError: that cannot be told: too few frames, or frames that A alone has restored exactly.
        """
        if self.infinite["a"]:
            raise UsageError(
                f"{self.infinite['a']} frames are restored exactly by A and not by B: their {self.metric} differs "
                "by infinity, which no mean holds",
                "--metric ssim --fail-if-worse …",
            )
        if self.verdict == "too few frames to tell":
            raise UsageError(
                f"{self.differences.size} frames of {len(self.sequences)} sequences are too few to tell a difference "
                f"of {told(self.difference, self.unit)} from chance",
                "evaluate more frames, or compare without --fail-if-worse",
            )
        if self.verdict == "worse" and abs(self.difference.mean) > threshold:
            raise WorseError(
                f"{self.b.path}: B is worse than A by more than {threshold:g}{self.unit} {self.metric}, and by more "
                f"than chance: B - A is {told(self.difference, self.unit)}",
                f"see where: spk compare {self.a.path} {self.b.path} -o compare.png",
            )

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        by_name = dict(zip(self.compared, self.estimates.per_sequence, strict=True))
        return {
            "a": _side(self.a),
            "b": _side(self.b),
            "protocol": self.b.protocol,
            "split": self.b.split,
            "metric": self.metric,
            "better": self.better,
            "averaging": self.averaging,
            "frames": int(self.differences.size),
            "sequences": len(self.sequences),
            "left_out": dict(self.left_out),
            "infinite": self.infinite,
            "difference": {
                "frames": _plain(self.estimates.frames),
                "sequences": _plain(self.estimates.sequences),
            },
            "level": LEVEL,
            "bootstrap": {
                "unit": self.estimates.unit,
                "samples": self.estimates.samples,
                "seed": self.estimates.seed,
            },
            "shares": self.shares,
            "verdict": self.verdict,
            "per_sequence": [
                {
                    "sequence": one.name,
                    "frames": one.a.size,
                    "a": finite_or_none(_mean(one.a)),
                    "b": finite_or_none(_mean(one.b)),
                    "difference": _plain(by_name[one.name]) if one.name in by_name else None,
                    "won": float((self.sign * one.difference > 0).mean()),
                }
                for one in self.sequences
            ],
        }


def pair_frames(a: ScoredFrames, b: ScoredFrames) -> tuple[tuple[PairedSequence, ...], dict[str, int]]:
    """The frames that both have, and how many are left out."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for frame, value in a.values.items():
        other = b.values.get(frame, math.nan)
        if not (math.isnan(value) or math.isnan(other)):
            pairs.setdefault(frame[0], []).append((value, other))
    undefined = sum(
        math.isnan(value) and math.isnan(b.values.get(frame, 0.0)) for frame, value in a.values.items()
    )
    left_out = {"a": len(frames_only_in(a, b)), "b": len(frames_only_in(b, a)), "undefined": undefined}
    sequences = (
        PairedSequence(name=name, a=np.array(both)[:, 0], b=np.array(both)[:, 1])
        for name, both in pairs.items()
    )
    return tuple(sequences), left_out


def frames_only_in(a: ScoredFrames, b: ScoredFrames) -> list[Frame]:
    """Frames with a value in `a` and none in `b`."""
    return [
        frame
        for frame, value in a.values.items()
        if not math.isnan(value) and math.isnan(b.values.get(frame, math.nan))
    ]


def told(estimate: Estimate, unit: str = "") -> str:
    """`+0.1200 dB [+0.0800, +0.1600]`."""
    mean = f"{estimate.mean:+.4f}{unit}"
    return f"{mean} [{estimate.low:+.4f}, {estimate.high:+.4f}]" if estimate.is_known else mean


def _mean(values: Floats) -> float:
    """Of the finite values; infinite where none is, as an evaluation has it."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.inf


def _side(side: ScoredFrames) -> dict[str, Any]:
    known = {key: side.network.get(key) for key in ("checkpoint", "step", "digest")}
    return {"path": str(side.path), "method": side.method, **known}


def _plain(estimate: Estimate) -> dict[str, float | None]:
    values = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    return {name: finite_or_none(value) for name, value in values.items()}
