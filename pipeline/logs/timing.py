"""How regular the exposures of a sequence are: the values that `timing_faults` finds and a store keeps."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.spans import SECOND_NS

MAX_LISTED = 20
Kind = Literal["reset", "step", "duplicate", "out of order", "unit"]
Verdict = Literal["regular", "irregular", "too few to tell", "too coarse to tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamped:
    """One exposure of a sequence, as whole numbers of some unit of time.

    Attributes:
        place: which frame it is of all that are known, with or without a usable exposure.
        name: of the frame. line: of the log; 0 where there is none.
    """

    place: int
    name: str
    line: int = 0
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that makes exposures untrustworthy: it was seen at frame `name`, and is `size` units large."""

    kind: Kind
    name: str
    line: int
    size: int

    def __str__(self) -> str:
        at = f"frame {self.name}" + (f" (line {self.line})" if self.line else "")
        return f"{self.kind} at {at}"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How regular the exposures of one sequence are. Times are in the unit of the exposures.

    Attributes:
        frames: exposures looked at.
        verdict: "regular"; "irregular": the rate changes by more than a step could be told from; "too few to tell":
            with more frames it might be regular; "too coarse to tell": rounding alone hides any step.
        period: median from one start to the next; None with less than two frames.
        jitter: robust standard deviation of the intervals.
        detects: a clock that is stepped by less than this goes unnoticed; None when there are too few frames.
        exposure: shortest, median and longest.
        gaps: (place of the frame after it, frames that are missing).
        overlaps: exposures that begin before the one before has ended.
        irregular: intervals that are no whole number of periods, in runs of several: the rate changes.
        faults: what was found.
        distrusted: why, by the place of each frame that must not be used.
    """

    frames: int
    verdict: Verdict
    period: int | None
    jitter: int
    detects: int | None
    exposure: tuple[int, int, int]
    gaps: tuple[tuple[int, int], ...] = ()
    overlaps: int = 0
    irregular: int = 0
    faults: tuple[Fault, ...] = ()
    distrusted: dict[int, str] = field(default_factory=dict)

    def count(self, kind: Kind) -> int:
        return sum(fault.kind == kind for fault in self.faults)

    def to_json(self, unit: str = "ns") -> dict[str, Any]:
        """What the store keeps of it."""
        in_ns = unit == "ns" and self.period
        return {
            "frames": self.frames,
            "verdict": self.verdict,
            "unit": unit,
            "rate_hz": round(SECOND_NS / self.period, 6) if in_ns and self.period else None,
            "period": self.period,
            "jitter": self.jitter,
            "detects": self.detects,
            "exposure": list(self.exposure),
            "gaps": len(self.gaps),
            "missing": sum(count for _, count in self.gaps),
            "resets": self.count("reset"),
            "steps": self.count("step"),
            "duplicates": self.count("duplicate"),
            "out_of_order": self.count("out of order"),
            "units": self.count("unit"),
            "overlaps": self.overlaps,
            "irregular": self.irregular,
            "distrusted": len(self.distrusted),
            "faults": [
                {"kind": fault.kind, "frame": fault.name, "line": fault.line, "size": fault.size}
                for fault in self.faults[:MAX_LISTED]
            ],
        }
