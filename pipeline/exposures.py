"""The rules by which a manifest gives each frame its exposure: whole files, windows around a number, a log."""

import contextlib
import functools
import itertools
from collections.abc import Sequence

from pipeline.errors import AlignmentError
from pipeline.frame_spans import FrameError, RecordingRule, Rule, Span, frames_span
from pipeline.logged import logged_rule
from pipeline.logs.timing import Stamped
from pipeline.logs.timing_faults import examine_timing
from pipeline.manifest import Exposure, Manifest, Numbering, RawFrames
from pipeline.name_patterns import search_name
from pipeline.recordings import Recording


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
        return logged_rule(recording, manifest, functools.partial(frame_number, numbering=exposure.numbering))
    return _windowed(recording, exposure)


def _windowed(recording: Recording, exposure: Exposure) -> RecordingRule:
    """Windows around or from the numbers of the frames; where numbers are left out, so are frames."""
    window = exposure.window or 1
    every = exposure.rule == "every"
    places = {frame: place for place, frame in enumerate(recording.listed)}

    def number_of(frame: str) -> int:
        if exposure.numbering.source == "order":
            return places[frame]
        name = frame if exposure.numbering.source == "frame" else recording.source_name
        return frame_number(name, exposure.numbering)

    def rule(_: int, frame: str) -> Span:
        number = number_of(frame)
        start = number * (exposure.stride or window) if every else number - window // 2
        return frames_span(start, start + window, recording.format.rate_hz)

    found = []
    for k, frame in enumerate(recording.listed):
        with contextlib.suppress(AlignmentError):  # the frame itself is set aside for its name
            span = rule(k, frame)
            found.append(Stamped(place=k, name=frame, start=span.start_ns, stop=span.stop_ns))
    if not found:
        return RecordingRule(rule)
    timing = examine_timing(found)
    return RecordingRule(rule, unseen=timing.gaps, timing=timing.to_json())


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
        return frames_span(starts[k] + margin, starts[k + 1] - margin, recording.format.rate_hz)

    return rule


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
