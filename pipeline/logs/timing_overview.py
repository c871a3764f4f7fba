"""The quality of timestamps at a glance: a row for each sequence of a store or of an alignment log."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import AlignmentError
from pipeline.frame_order import FrameOrder
from pipeline.logged import log_timing, timing_facts
from pipeline.logs.clock import ClockFit, fit_clock
from pipeline.logs.dialects import recognise
from pipeline.logs.rows import SyncRow
from pipeline.logs.timestamps import ExposureLog, read_log
from pipeline.spans import SECOND_NS

TIMING_COLUMNS = (
    "sequence",
    "frames",
    "rate",
    "jitter",
    "exposure",
    "verdict",
    "noticed",
    "set aside",
    "clock",
)
_NOTICED = {
    "gaps": "gap",
    "missing": "missing frame",
    "resets": "reset",
    "steps": "step",
    "duplicates": "duplicate",
    "out_of_order": "out of order",
    "units": "unit change",
    "overlaps": "overlap",
    "irregular": "irregular interval",
    "outside": "outside",
    "bad_rows": "bad row",
}
_UNCOUNTED = ("out of order", "outside")
_HEADER_BYTES = 400


def timing_row(timing: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one sequence under `TIMING_COLUMNS`, from its attributes in a store or from `log_facts`."""
    unit = timing["unit"]
    rate = timing["rate_hz"]
    period = "" if timing["period"] is None else f"every {_length(timing['period'], unit)}"
    exposure = list(dict.fromkeys(_length(length, unit) for length in timing["exposure"]))
    noticed = [_counted(timing[key], what) for key, what in _NOTICED.items() if timing.get(key)]
    return (
        timing["sequence"],
        str(timing["frames"]),
        f"{rate:.3f} Hz" if rate else period,
        _length(timing["jitter"], unit),
        " to ".join((exposure[0], exposure[-1]) if len(exposure) > 1 else exposure),
        timing["verdict"],
        ", ".join(noticed),
        str(timing["distrusted"]),
        _clock(timing.get("clock")),
    )


def fault_lines(timing: Mapping[str, Any]) -> list[str]:
    """A line for each fault: what happened to the clock, and where."""
    return [
        f"{timing['sequence']}: {fault['kind']} at frame {fault['frame']}"
        + (f" (line {fault['line']})" if fault["line"] else "")
        + f", {_length(fault['size'], timing['unit'])}"
        for fault in timing["faults"]
    ]


def is_log(path: Path) -> bool:
    """Whether the first line of a file is that of an alignment log."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES).partition(b"\n")[0]
    try:
        recognise(path, header.decode("utf-8-sig").strip(), None)
    except (AlignmentError, UnicodeDecodeError):
        return False
    return True


def log_facts(path: Path) -> dict[str, Any]:
    """What `spk inspect LOG` tells: its dialect, how many rows it has, the timing of each of its sequences.

    Raises:
        FormatError, AlignmentError: it cannot be read at all; single bad rows are in `bad_rows`.
    """
    log = read_log(path, quarantine=True)
    return {
        "kind": "log",
        "dialect": log.dialect,
        "unit": log.unit,
        "rows": len(log.rows),
        "sync_rows": len(log.sync),
        "resolution_ns": log.resolution_ns,
        "timing": [_timing_of(log, name) for name in log.sequences],
        "bad_rows": [
            {"line": row.line, "sequence": row.sequence, "frame": row.frame, "reason": row.reason}
            for row in log.bad_rows
        ],
    }


def _timing_of(log: ExposureLog, name: str | None) -> dict[str, Any]:
    names = () if name is None else (name,)
    rows, bad = log.of(*names), log.bad_of(*names)
    order = FrameOrder({}, {*rows, *(row.frame for row in bad if row.frame)})
    fit = _fit_of(log.sync_of(*names), log.resolution_ns)
    facts = timing_facts(log, log_timing(log, rows, order, None), rows, order, fit, bad)
    if fit:
        facts["clock"] = {**facts["clock"], "drift_ppm": None}  # against which rate, the log does not say
    return {"sequence": name or log.path.name, **facts}


def _fit_of(sync: Sequence[SyncRow], resolution_ns: int) -> ClockFit | None:
    """The clock by the rate that the first and last sync row give."""
    by_index = sorted(sync, key=lambda row: row.spike_index)
    if not by_index or by_index[-1].stamp_ns <= by_index[0].stamp_ns:
        return None
    first, last = by_index[0], by_index[-1]
    frames = last.spike_index - first.spike_index
    rate_hz = Fraction(frames * SECOND_NS, last.stamp_ns - first.stamp_ns)
    return fit_clock(sync, rate_hz, resolution_ns) if frames else None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 or what in _UNCOUNTED else f"{number} {what}s"


def _clock(clock: Mapping[str, Any] | None) -> str:
    if not clock:
        return ""
    drift = "" if clock["drift_ppm"] is None else f"{clock['drift_ppm']:+.1f} ppm, "
    return f"{clock['sync_rows']} sync, {drift}rms {clock['rms_frames']:.3f}"


def _length(length: int, unit: str) -> str:
    if unit != "ns":
        return f"{length} {unit}"
    for size, name in ((SECOND_NS, "s"), (1_000_000, "ms"), (1_000, "us")):
        if abs(length) >= size:
            return f"{length / size:.4g} {name}"
    return f"{length} ns"
