"""The exposures of a recording, by the rule of its manifest. Nothing is clipped into the recording."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dat import SpikeStream
from pipeline.errors import AlignmentError
from pipeline.exposures import raw_count, rule_of
from pipeline.frame_spans import FrameError, OutsideError, Span
from pipeline.manifest import Manifest
from pipeline.recordings import Recording
from pipeline.reports import Quarantined
from pipeline.spans import nanoseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """The exposures of one recording, one row per usable frame, in the recording's order.

    Attributes:
        frames: N names; those of the recording that have a usable exposure.
        exposure: int64 (N, 2) spans [start, stop) of spike frames. A recording of several files counts through them
            all, in order.
        exposure_ns: int64 (N, 2), the same on the spike clock, or as the log had it.
        sharp_index: int64 (N,) spike frame at the instant of the sharp frame, -1 where there is none.
        positions: int64 (N,) which frame of the whole recording each is, counting those set aside and those that the
            times of the others show to be missing: where it skips a number, what comes next is not what came next.
        residual_ns: int64 (N,) how far the farther edge of the span is from the log's stamp; 0 without a log.
        problems: frames set aside, and why.
        timing: how regular its exposures are, as plain values (`Timing.to_json`, and what came of them here); empty
            for rules without times.
    """

    frames: tuple[str, ...]
    exposure: npt.NDArray[np.int64]
    exposure_ns: npt.NDArray[np.int64]
    sharp_index: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    residual_ns: npt.NDArray[np.int64]
    problems: tuple[Quarantined, ...]
    timing: Mapping[str, Any] = field(default_factory=dict)

    def only(self, usable: npt.NDArray[np.bool_], problems: Sequence[Quarantined]) -> "Alignment":
        """The rows marked in `usable`, (N,), and these `problems`."""
        rows = ("exposure", "exposure_ns", "sharp_index", "positions", "residual_ns")
        frames = tuple(itertools.compress(self.frames, usable))
        kept = {name: getattr(self, name)[usable] for name in rows}
        return dataclasses.replace(self, frames=frames, problems=tuple(problems), **kept)


def align_recording(
    recording: Recording, manifest: Manifest, streams: Sequence[SpikeStream], offset: int = 0
) -> Alignment:
    """Find the exposure of every frame of a recording by its manifest's rule.

    A frame whose exposure is missing, malformed, out of order, empty or not wholly inside the recording is set aside
    in `problems`: whether that stops the work is the caller's choice.

    Args:
        streams: the opened `recording.spike_paths`, in their order.
        offset: spike frames added to every exposure, besides the manifest's `offset_frames`.

    Raises:
        AlignmentError: the rule cannot be applied to this recording at all; the log cannot be read.
    """
    if [stream.path for stream in streams] != list(recording.spike_paths):
        raise ValueError("the streams are not those of the recording")
    lengths = [len(stream) for stream in streams]
    rule, log_problems, unseen, distrusted, timing = rule_of(recording, manifest, lengths)
    problems, outside = list(log_problems), 0
    spans: dict[str, Span] = {}
    sharp: list[int] = []
    for k, frame in enumerate(recording.frames):
        try:
            span = _moved(rule(k, frame), offset + manifest.exposure.offset_frames, recording.format.rate_hz)
            _require_inside(span, sum(lengths))
            if frame in distrusted:
                raise FrameError(distrusted[frame])
            sharp.append(_sharp_index(span, recording, manifest, k))
            spans[frame] = span
        except (FrameError, AlignmentError) as error:
            outside += isinstance(error, OutsideError)
            reason = error.problem if isinstance(error, AlignmentError) else str(error)
            problems.append(Quarantined(_place(recording, k), reason))
    found = _alignment(spans, sharp, _positions(recording, list(spans), unseen), problems)
    rounding = int(found.residual_ns.max(initial=0))
    return replace(found, timing={**timing, "outside": outside, "rounding_ns": rounding} if timing else {})


def _moved(span: Span, offset: int, rate_hz: Fraction) -> Span:
    offset_ns = nanoseconds(offset, rate_hz)
    return replace(
        span,
        start=span.start + offset,
        stop=span.stop + offset,
        start_ns=span.start_ns + offset_ns,
        stop_ns=span.stop_ns + offset_ns,
        sharp=None if span.sharp is None else span.sharp + offset,
    )


def _require_inside(span: Span, num_frames: int) -> None:
    if span.start >= span.stop:
        raise FrameError(f"exposure [{span.start_ns}, {span.stop_ns}) ns holds the middle of no spike frame")
    if span.start < 0 or span.stop > num_frames:
        where = "begins before" if span.start < 0 else "ends after"
        span_text = f"[{span.start}, {span.stop})"
        raise OutsideError(f"exposure of spike frames {span_text} {where} the recording of {num_frames}")


def _sharp_index(span: Span, recording: Recording, manifest: Manifest, k: int) -> int:
    if recording.sharp_paths[k] is None:
        return -1
    if manifest.sharp.rule == "middle":
        return (span.start + span.stop) // 2 if span.sharp is None else span.sharp
    if span.sharp is not None:
        raise AlignmentError(
            f"the log tells the instants of the sharp frames, and the manifest has sharp.rule {manifest.sharp.rule}",
            "leave `sharp` out of the manifest, or the column out of the log",
        )
    raw = manifest.exposure.raw_frames
    offset = manifest.sharp.index or 0
    if manifest.sharp.rule == "raw_frames" and raw is not None:
        offset = raw.spike_frames * (raw_count(recording, raw) // 2)
    if span.start + offset >= span.stop:
        raise FrameError(
            f"the sharp frame is at {offset} of an exposure of {span.stop - span.start} spike frames"
        )
    return span.start + offset


def _place(recording: Recording, k: int) -> str:
    path = recording.blurry_paths[k] or recording.sharp_paths[k]
    return str(path or f"{recording.spike_paths[0]}#{recording.frames[k]}")


def _positions(
    recording: Recording, frames: Sequence[str], unseen: Sequence[tuple[int, int]]
) -> npt.NDArray[np.int64]:
    place = {frame: k for k, frame in enumerate(recording.listed)}
    listed = np.array([place[frame] for frame in frames], np.int64)
    places, counts = np.array(unseen, np.int64).reshape(-1, 2).T
    before = np.concatenate([[0], np.cumsum(counts)])
    return listed + before[np.searchsorted(places, listed, side="right")]


def _alignment(
    spans: dict[str, Span], sharp: list[int], positions: npt.NDArray[np.int64], problems: list[Quarantined]
) -> Alignment:
    found = spans.values()
    return Alignment(
        frames=tuple(spans),
        exposure=np.array([(span.start, span.stop) for span in found], np.int64).reshape(-1, 2),
        exposure_ns=np.array([(span.start_ns, span.stop_ns) for span in found], np.int64).reshape(-1, 2),
        sharp_index=np.array(sharp, np.int64),
        positions=positions,
        residual_ns=np.array([span.residual_ns for span in found], np.int64),
        problems=tuple(problems),
    )
