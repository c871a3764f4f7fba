"""The exposure rule `log`: each frame's row of the timestamp log, on the clock of the spikes."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import AlignmentError
from pipeline.frame_order import FrameOrder
from pipeline.frame_spans import FrameError, RecordingRule, Span, frames_span
from pipeline.logs.clock import ClockFit, fit_clock
from pipeline.logs.rows import BadRow, LoggedExposure
from pipeline.logs.settings import TimestampColumns
from pipeline.logs.timestamps import ExposureLog, read_log
from pipeline.logs.timing import Stamped, Timing
from pipeline.logs.timing_faults import examine_timing
from pipeline.manifest import Exposure, Manifest
from pipeline.recordings import Recording
from pipeline.reports import Quarantined
from pipeline.spans import SECOND_NS, frame_at, span_of


def logged_rule(recording: Recording, manifest: Manifest, number_of: Callable[[str], int]) -> RecordingRule:
    """The rule `log`, as it is for this recording.

    Args:
        number_of: the number that a frame's name stands for; raises AlignmentError.

    Raises:
        AlignmentError: the log has another number of entries than there are frames, or its clock cannot be told;
            FormatError: the log cannot be read.
    """
    of = f"{recording.split}/{recording.source_name}"
    if recording.log_path is None:
        raise AlignmentError(f"{of}: no alignment log")
    exposure = manifest.exposure
    log = _read_log_once(
        recording.log_path, exposure.dialect, exposure.timestamps, exposure.clock.stamp or "start"
    )
    names = (of, recording.source_name)
    rows, bad = log.of(*names), log.bad_of(*names)
    if log.by_order:
        _require_as_many(log, recording, manifest, len(rows) + len(bad))
    key_of = _keys_of_frames(log, recording, number_of)
    listed, usable = _keys(recording.listed, key_of), _keys(recording.frames, key_of)
    without_image = [row for key, row in rows.items() if key not in listed]
    order = FrameOrder(listed, {row.frame for row in (*without_image, *bad) if row.frame} - set(listed))
    fit = _fit(log, names, recording, exposure)
    clock = _Clock(
        log=log,
        rate_hz=recording.format.rate_hz,
        clock_hz=exposure.log_rate_hz or recording.format.rate_hz,
        fit=fit,
        origin_ns=_origin(log, rows, bad, order, listed, exposure),
    )
    timing = log_timing(log, rows, order, clock.clock_hz)

    def rule(_: int, frame: str) -> Span:
        key = key_of(frame)
        if key not in rows:
            reasons = [f"{log.path}:{row.line}: {row.reason}" for row in bad if row.frame == key]
            raise FrameError("; ".join(reasons) or f"frame {key} of {of} has no row in {log.path}")
        return clock.span(rows[key])

    found = [(row.line, row.reason) for row in bad if row.frame not in usable]
    found += [(row.line, f"frame {row.frame} of {of} has no image") for row in without_image]
    cut = _cut_frame(log, rows, listed, order)
    distrusted = {
        frame: _reason(timing, order, log, rows, key, cut) for key, frame in _names(recording, key_of)
    }
    return RecordingRule(
        rule,
        tuple(Quarantined(f"{log.path}:{line}", reason) for line, reason in sorted(found)),
        order.unseen(timing.gaps if timing else ()),
        {frame: reason for frame, reason in distrusted.items() if reason},
        timing_facts(log, timing, rows, order, fit, bad),
    )


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """From the times of a log to spans of spike frames."""

    log: ExposureLog
    rate_hz: Fraction
    clock_hz: Fraction
    fit: ClockFit | None
    origin_ns: int

    def span(self, row: LoggedExposure) -> Span:
        """Raises FrameError where the fitted clock says nothing."""
        span = self._exposed(row)
        return span if row.sharp is None else replace(span, sharp=self._nearest(row.sharp, span))

    def _nearest(self, sharp: int, span: Span) -> int:
        """The exposed spike frame that holds an instant; it may lie in half a frame at the edge that is not exposed."""
        if self.fit is not None:
            on_spikes = self.fit.spike_frame(sharp) * SECOND_NS / self.rate_hz
            frame = frame_at(on_spikes, self.rate_hz, self.log.resolution_ns)
        else:
            frame = frame_at(sharp - self.origin_ns, self.clock_hz, self.log.resolution_ns)
        return min(max(frame, span.start), span.stop - 1)

    def _exposed(self, row: LoggedExposure) -> Span:
        if self.log.unit != "ns":
            return frames_span(row.start, row.stop, self.rate_hz)
        if self.fit is not None:
            return self._fitted(self.fit, row)
        start_ns, stop_ns = row.start - self.origin_ns, row.stop - self.origin_ns
        start, stop, residual_ns = span_of(start_ns, stop_ns, self.clock_hz, self.log.resolution_ns)
        if self.clock_hz != self.rate_hz:
            return frames_span(start, stop, self.rate_hz, residual_ns)
        return Span(start=start, stop=stop, start_ns=start_ns, stop_ns=stop_ns, residual_ns=residual_ns)

    def _fitted(self, fit: ClockFit, row: LoggedExposure) -> Span:
        if fit.problem:
            raise FrameError(f"{self.log.path}: the sync rows do not fit: {fit.problem}")
        if not all(fit.is_known_at(fit.spike_frame(stamp)) for stamp in (row.start, row.stop)):
            raise FrameError(
                f"{self.log.path}:{row.line}: so far from the sync rows their clock is not known to half a spike frame"
            )
        start_ns, stop_ns = (
            fit.spike_frame(stamp) * SECOND_NS / self.rate_hz for stamp in (row.start, row.stop)
        )
        start, stop, residual_ns = span_of(start_ns, stop_ns, self.rate_hz, self.log.resolution_ns)
        return Span(
            start=start, stop=stop, start_ns=round(start_ns), stop_ns=round(stop_ns), residual_ns=residual_ns
        )


def _fit(
    log: ExposureLog, names: tuple[str, str], recording: Recording, exposure: Exposure
) -> ClockFit | None:
    sync = log.sync_of(*names)
    if not sync:
        return None
    if exposure.clock.origin is not None:
        raise AlignmentError(
            f"{log.path}:{sync[0].line}: a sync row, and the manifest has clock.origin: which of them is it?",
            "leave clock.origin out, or the column spike_index",
        )
    return fit_clock(sync, exposure.log_rate_hz or recording.format.rate_hz, log.resolution_ns)


def _origin(
    log: ExposureLog,
    rows: Mapping[str, LoggedExposure],
    bad: Sequence[BadRow],
    order: FrameOrder,
    listed: Mapping[str, int],
    exposure: Exposure,
) -> int:
    """When spike frame 0 began on the log's clock, in ns, where there are no sync rows."""
    clock = exposure.clock
    if log.dialect == "pairs" and (clock.stamp is None or clock.origin is None):
        raise AlignmentError(
            f"{log.path}: a log of pairs says neither what its stamps are nor when the spikes began",
            "declare exposure.clock: {stamp: start|middle|end, origin: first_frame, or ns of spike frame 0}",
        )
    if clock.origin is None:
        return 0
    if log.unit != "ns":
        raise AlignmentError(f"{log.path}: spike frame indices have no clock.origin", "leave it out")
    if clock.origin != "first_frame":
        return clock.origin
    first = min(order.place, key=order.place.__getitem__)
    unknown = [row for row in bad if row.frame is None or row.frame == first]
    starts = [row.start for row in rows.values()]
    if first not in rows or unknown or rows[first].start != min(starts):
        where = f"{log.path}:{unknown[0].line}" if unknown else f"{log.path}"
        raise AlignmentError(
            f"{where}: the first frame {first} has no usable row, or another is earlier: there is no origin"
            " of the clock",
            "correct the log, or give clock.origin in ns",
        )
    return rows[first].start


def log_timing(
    log: ExposureLog, rows: Mapping[str, LoggedExposure], order: FrameOrder, clock_hz: Fraction | None
) -> Timing | None:
    """How regular some rows of a log are; None when there are none.

    Args:
        clock_hz: spike frames per second of the log's clock, where that is known.
    """
    stamped = [
        Stamped(place=order.place[row.frame], name=row.frame, line=row.line, start=row.start, stop=row.stop)
        for row in rows.values()
    ]
    if not stamped:
        return None
    if log.unit != "ns":
        return examine_timing(stamped, least=3, resolution=1)
    one_frame = math.ceil(SECOND_NS / clock_hz) if clock_hz else 0
    return examine_timing(stamped, least=one_frame, resolution=log.resolution_ns)


def timing_facts(
    log: ExposureLog,
    timing: Timing | None,
    rows: Mapping[str, LoggedExposure],
    order: FrameOrder,
    fit: ClockFit | None,
    bad: Sequence[BadRow],
) -> dict[str, Any]:
    """`Timing.to_json` with what only the log knows; empty when there are no rows."""
    if timing is None:
        return {}
    places = [order.place[frame] for frame in rows]
    return timing.to_json(log.unit) | {
        "dialect": log.dialect,
        "bad_rows": len(bad),
        "rows_out_of_order": sum(b < a for a, b in itertools.pairwise(places)),
        "clock": fit.to_json() if fit else None,
    }


def _cut_frame(
    log: ExposureLog, rows: Mapping[str, LoggedExposure], listed: Mapping[str, int], order: FrameOrder
) -> str | None:
    """The frame of a row without a line break where the log ends too early, so that the row may be cut as well."""
    last = next((row for row in rows.values() if row.line == log.cut_line), None)
    if last is None:
        return None
    late = [key for key in listed if key not in rows and order.place[key] > order.place[last.frame]]
    return last.frame if late else None


def _reason(
    timing: Timing | None,
    order: FrameOrder,
    log: ExposureLog,
    rows: Mapping[str, LoggedExposure],
    key: str,
    cut: str | None,
) -> str | None:
    """Why the row of a frame must not be used although it reads well."""
    if timing is None or key not in rows:
        return None
    place = f"{log.path}:{rows[key].line}"
    if key == cut:
        return f"{place}: the log ends here, without a line break and before the last frame: cut short"
    reason = timing.distrusted.get(order.place[key])
    return f"{place}: {reason} (in {log.unit})" if reason else None


def _require_as_many(log: ExposureLog, recording: Recording, manifest: Manifest, entries: int) -> None:
    of = f"{recording.split}/{recording.source_name}"
    if "{sequence}" in manifest.layout.spikes and "{sequence}" not in (manifest.layout.log or ""):
        raise AlignmentError(
            f"{log.path}: names no frames, and layout.log {manifest.layout.log!r} gives it to every sequence",
            "keep one such log per sequence, with {sequence} in layout.log",
        )
    if entries != len(recording.listed):
        raise AlignmentError(
            f"{log.path}: {entries} entries for the {len(recording.listed)} frames of {of}, expected one for each:"
            " it names no frames",
            "remove the entries or images that have no counterpart; which ones they are, the log does not say",
        )


def _keys_of_frames(
    log: ExposureLog, recording: Recording, number_of: Callable[[str], int]
) -> Callable[[str], str]:
    """From a frame's name to how the log names it; raises AlignmentError."""
    if log.by_order:
        places = {frame: str(k) for k, frame in enumerate(recording.listed)}
        return places.__getitem__
    if log.dialect == "seconds":
        return lambda frame: str(number_of(frame))
    if log.dialect == "indices":
        return lambda frame: (frame.lstrip("0") or "0") if frame.isascii() and frame.isdecimal() else frame
    return str


def _names(recording: Recording, key_of: Callable[[str], str]) -> list[tuple[str, str]]:
    """(key, name) of every usable frame that the log can name."""
    return [(key, recording.frames[k]) for key, k in _keys(recording.frames, key_of).items()]


def _keys(frames: Sequence[str], key_of: Callable[[str], str]) -> dict[str, int]:
    """The index of every frame that the log can name."""
    keys = {}
    for k, frame in enumerate(frames):
        with contextlib.suppress(AlignmentError):  # the frame itself is set aside for its name
            keys[key_of(frame)] = k
    return keys


def _read_log_once(
    path: Path, dialect: str | None, columns: TimestampColumns | None, stamp: str
) -> ExposureLog:
    """One log may serve thousands of recordings: it is read again only when it has changed."""
    status = path.stat()
    return _cached_log(path, dialect, columns, stamp, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _cached_log(
    path: Path, dialect: str | None, columns: TimestampColumns | None, stamp: str, mtime_ns: int, size: int
) -> ExposureLog:
    return read_log(path, dialect, quarantine=True, columns=columns, stamp=stamp)
