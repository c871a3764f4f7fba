"""How good the data of a sequence is, from what its store knows: bad data is to be seen beside bad scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.alignment.mismatches import questionable
from pipeline.logs.timing_overview import TIMING_COLUMNS, fault_lines, timing_row
from pipeline.store import Sequence

_FOUND_BY_TIMING = ("rate", "jitter", "exposure", "verdict", "noticed", "clock")


@dataclass(frozen=True, kw_only=True, slots=True)
class LightQuality:
    """How the blurry frames fit the spikes of their exposures, as `pipeline.physics.LightFit` says.

    Attributes:
        slope: median, in light a spike.
        r2_median, r2_worst: of the frames.
        attainable: median of the R² that the quantisation of counts allows.
        questionable: the fit is too bad for frames and spikes of one scene.
    """

    slope: float
    r2_median: float
    r2_worst: float
    attainable: float
    questionable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DataQuality:
    """What is known of one sequence's data.

    Attributes:
        timing: rate, jitter, exposure, verdict, noticed, clock, as `spk inspect` writes them; empty where the
            exposures come without times.
        spike_frames: fewest and most of an exposure.
        offset: spike frames that `spk align --apply` moved the exposures by.
        residual_ns: most that an exposure's ends were moved to fall on spike frames.
        runs: stretches of frames without a gap.
        light: None where no RGB camera took the frames.
        set_aside: (where, why) of each frame that is not used.
        left_out: frames without a spike file, which the manifest says to leave out.
        faults: a line for each fault of the clock.
    """

    timing: Mapping[str, str]
    spike_frames: tuple[int, int]
    offset: int
    residual_ns: int
    runs: int
    light: LightQuality | None
    set_aside: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is wrong or strange, in words; empty for data without a flaw."""
        found = []
        if self.light is not None and self.light.questionable:
            found.append(f"frames do not fit their spikes: median R² {self.light.r2_median:.2f}")
        if self.timing.get("verdict") == "irregular":
            found.append("irregular times")
        if self.timing.get("noticed"):
            found.append(self.timing["noticed"])
        if self.runs > 1:
            found.append(f"{self.runs - 1} gap{'s' if self.runs > 2 else ''}")
        if self.set_aside:
            found.append(f"{len(self.set_aside)} set aside")
        return tuple(found)


def data_quality(sequence: Sequence) -> DataQuality:
    """What the store knows of the data of a sequence."""
    about: Mapping[str, Any] = sequence.attributes
    lengths = np.diff(sequence.exposure).ravel()
    timing = {"sequence": sequence.name, **(about.get("timing") or {})}
    known = len(timing) > 1
    cells = dict(zip(TIMING_COLUMNS, timing_row(timing), strict=True)) if known else {}
    return DataQuality(
        timing={name: cells[name] for name in _FOUND_BY_TIMING if cells.get(name)},
        spike_frames=(int(lengths.min()), int(lengths.max())),
        offset=int(about.get("alignment_offset") or 0),
        residual_ns=int(np.abs(about.get("residual_ns") or [0]).max()),
        runs=len(sequence.runs),
        light=_light(sequence),
        set_aside=tuple((problem["path"], problem["reason"]) for problem in about.get("set_aside") or ()),
        left_out=tuple(map(str, about.get("left_out") or ())),
        faults=tuple(fault_lines(timing)) if known else (),
    )


def _light(sequence: Sequence) -> LightQuality | None:
    fits = sequence.light
    if not fits:
        return None
    r2 = [fit.r2 for fit in fits]
    return LightQuality(
        slope=float(np.median([fit.slope for fit in fits])),
        r2_median=float(np.median(r2)),
        r2_worst=min(r2),
        attainable=float(np.median([fit.attainable for fit in fits])),
        questionable=questionable(fits) is not None,
    )
