"""The rules by which a manifest gives each frame its exposure: whole files, windows around a number, a log."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import AlignmentError
from pipeline.manifest import Exposure, Manifest, Numbering, RawFrames
from pipeline.name_patterns import search_name
from pipeline.recordings import Recording, natural_order
from pipeline.reports import Quarantined
from pipeline.spans import nanoseconds, span_of
from pipeline.timestamps import ExposureLog, read_log


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Spike frames [start, stop) and nanoseconds [start_ns, stop_ns) of one exposure, and how far apart they are."""

    start: int
    stop: int
    start_ns: int
    stop_ns: int
    residual_ns: int = 0


class FrameError(Exception):
    """Why one frame has no usable exposure."""


Rule = Callable[[int, str], Span]
"""The span of frame number k, named so; raises `FrameError`."""


class RecordingRule(NamedTuple):
    """The rule for one recording, and what its log tells that concerns none of its frames.

    Attributes:
        problems: rows of the log that cannot be used, or whose frames have no image.
        unseen: for every frame that only the log knows, how many of `Recording.listed` come before it; increasing.
    """

    rule: Rule
    problems: tuple[Quarantined, ...] = ()
    unseen: tuple[int, ...] = ()


def frame_number(name: str, numbering: Numbering) -> int:
    """The number that a frame's or sequence's name stands for.

    Raises:
        AlignmentError: the name does not fit the pattern.
    """
    match = search_name(numbering.pattern, name)
    digits = [] if match is None else [group for group in match.groups() if group is not None]
    if not digits or not all(group.isascii() and group.isdecimal() for group in digits):
        raise AlignmentError(f"name {name!r} has no number where {numbering.pattern!r} looks for one")
    fraction = int(digits[1]) + 1 if len(digits) == 2 else 0
    return int(digits[0]) * numbering.per_number + fraction + numbering.offset


def rule_of(recording: Recording, manifest: Manifest, lengths: Sequence[int]) -> RecordingRule:
    """The rule of the manifest, as it is for this recording.

    Args:
        lengths: spike frames in each of the recording's files.

    Raises:
        AlignmentError: the rule cannot be applied to this recording; FormatError: the log cannot be read.
    """
    exposure = manifest.exposure
    if exposure.rule == "whole_file":
        return RecordingRule(_whole_file(recording, exposure, lengths))
    if exposure.rule == "log":
        return _logged(recording, manifest)
    return RecordingRule(_windowed(recording, exposure))


def _windowed(recording: Recording, exposure: Exposure) -> Rule:
    window = exposure.window or 1
    every = exposure.rule == "every"

    def rule(_: int, frame: str) -> Span:
        name = frame if exposure.numbering.source == "frame" else recording.source_name
        number = frame_number(name, exposure.numbering)
        start = number * (exposure.stride or window) if every else number - window // 2
        return _frames_span(start, start + window, recording.format.rate_hz)

    return rule


def _whole_file(recording: Recording, exposure: Exposure, lengths: Sequence[int]) -> Rule:
    if len(lengths) != len(recording.frames):
        raise AlignmentError(
            f"{recording.split}/{recording.source_name}: {len(lengths)} spike files for {len(recording.frames)} frames,"
            " expected one for each",
            "use the exposure rule centred, log or every",
        )
    starts = list(itertools.accumulate(lengths, initial=0))
    margin = exposure.margin

    def rule(k: int, _: str) -> Span:
        _require_length(lengths[k], recording, exposure, last=k == len(lengths) - 1)
        return _frames_span(starts[k] + margin, starts[k + 1] - margin, recording.format.rate_hz)

    return rule


def _logged(recording: Recording, manifest: Manifest) -> RecordingRule:
    of = f"{recording.split}/{recording.source_name}"
    if recording.log_path is None:
        raise AlignmentError(f"{of}: no alignment log")
    log = _read_log_once(recording.log_path, manifest.exposure.dialect)
    rows, bad = log.of(of, recording.source_name), log.bad_of(of, recording.source_name)
    rate_hz = recording.format.rate_hz
    clock_hz = manifest.exposure.log_rate_hz or rate_hz
    numbered = log.dialect == "seconds"

    def key_of(frame: str) -> str:
        return str(frame_number(frame, manifest.exposure.numbering)) if numbered else frame

    def rule(_: int, frame: str) -> Span:
        key = key_of(frame)
        if key not in rows:
            reasons = [f"{log.path}:{row.line}: {row.reason}" for row in bad if row.frame == key]
            raise FrameError("; ".join(reasons) or f"frame {key} of {of} has no row in {log.path}")
        row = rows[key]
        start, stop, residual_ns = span_of(row.start_ns, row.stop_ns, clock_hz, log.resolution_ns)
        if clock_hz != rate_hz:
            return _frames_span(start, stop, rate_hz, residual_ns)
        return Span(
            start=start, stop=stop, start_ns=row.start_ns, stop_ns=row.stop_ns, residual_ns=residual_ns
        )

    listed, usable = _keys(recording.listed, key_of), _keys(recording.frames, key_of)
    without_image = [row for key, row in rows.items() if key not in listed]
    found = [(row.line, row.reason) for row in bad if row.frame not in usable]
    found += [(row.line, f"frame {row.frame} of {of} has no image") for row in without_image]
    unseen = {row.frame for row in (*without_image, *bad) if row.frame and row.frame not in listed}
    return RecordingRule(
        rule,
        tuple(Quarantined(f"{log.path}:{line}", reason) for line, reason in sorted(found)),
        tuple(sorted(_place_among(listed, frame, len(recording.listed)) for frame in unseen)),
    )


def _keys(frames: Sequence[str], key_of: Callable[[str], str]) -> dict[str, int]:
    """The index of every frame that the log can name."""
    keys = {}
    for k, frame in enumerate(frames):
        with contextlib.suppress(AlignmentError):  # the frame itself is set aside for its name
            keys[key_of(frame)] = k
    return keys


def _place_among(keys: Mapping[str, int], key: str, num_frames: int) -> int:
    """The index of the frame before which `key` belongs; `num_frames` if none comes after it."""
    later = [k for other, k in keys.items() if natural_order(other) > natural_order(key)]
    return min(later, default=num_frames)


def _read_log_once(path: Path, dialect: str | None) -> ExposureLog:
    """One log may serve thousands of recordings: it is read again only when it has changed."""
    status = path.stat()
    return _cached_log(path, dialect, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _cached_log(path: Path, dialect: str | None, mtime_ns: int, size: int) -> ExposureLog:
    return read_log(path, dialect, quarantine=True)


def _frames_span(start: int, stop: int, rate_hz: Fraction, residual_ns: int = 0) -> Span:
    return Span(
        start=start,
        stop=stop,
        start_ns=nanoseconds(start, rate_hz),
        stop_ns=nanoseconds(stop, rate_hz),
        residual_ns=residual_ns,
    )


def _require_length(found: int, recording: Recording, exposure: Exposure, *, last: bool) -> None:
    """Refuse a file of another length than the manifest knows: its exposure would not be where it says."""
    raw, sides = exposure.raw_frames, 2 * exposure.margin
    if raw is not None:
        count = raw_count(recording, raw)
        whole, why = count * raw.spike_frames, f"{count} raw frames of {raw.spike_frames}"
        exposures = {whole, whole - raw.last_short} if last else {whole}
    elif exposure.window is not None:
        exposures, why = {exposure.window}, f"an exposure of {exposure.window}"
    else:
        return
    if found - sides not in exposures:
        expected = " or ".join(str(length + sides) for length in sorted(exposures))
        margins = f" and a margin of {exposure.margin} on both sides" if sides else ""
        raise FrameError(f"{found} spike frames, expected {expected} ({why}{margins})")


def raw_count(recording: Recording, raw: RawFrames) -> int:
    """How many raw frames make one blurry frame of this sequence.

    Raises:
        AlignmentError: its name does not say.
    """
    match = search_name(raw.pattern, recording.source_name)
    if match is None or not (match[1] or "").isdecimal():
        raise AlignmentError(
            f"sequence {recording.source_name!r} has no number where {raw.pattern!r} looks for one"
        )
    return int(match[1])
