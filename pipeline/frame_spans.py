"""What a rule of a manifest gives every frame of a recording: a span of spike frames, or a reason why not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

from pipeline.reports import Quarantined
from pipeline.spans import nanoseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Spike frames [start, stop) and nanoseconds [start_ns, stop_ns) of one exposure, and how far apart they are.

    Attributes:
        sharp: the spike frame that shows the instant of the sharp frame; None where the rule does not know it.
    """

    start: int
    stop: int
    start_ns: int
    stop_ns: int
    residual_ns: int = 0
    sharp: int | None = None


class FrameError(Exception):
    """Why one frame has no usable exposure."""


class OutsideError(FrameError):
    """An exposure that is not wholly inside the recording."""


Rule = Callable[[int, str], Span]
"""The span of frame number k, named so; raises `FrameError`."""


class RecordingRule(NamedTuple):
    """The rule for one recording, and what its log tells that concerns none of its frames.

    Attributes:
        problems: rows of the log that cannot be used, or whose frames have no image.
        unseen: (place, count): so many frames that are not in `Recording.listed` come before the one at that place,
            because only the log knows them or because they are missing from it too; places increase.
        distrusted: frames whose exposures the log's own timing contradicts, and how.
        timing: `Timing.to_json` of its frames; empty for rules without times.
    """

    rule: Rule
    problems: tuple[Quarantined, ...] = ()
    unseen: tuple[tuple[int, int], ...] = ()
    distrusted: Mapping[str, str] = MappingProxyType({})
    timing: Mapping[str, Any] = MappingProxyType({})


def frames_span(start: int, stop: int, rate_hz: Fraction, residual_ns: int = 0) -> Span:
    """The span of whole spike frames."""
    return Span(
        start=start,
        stop=stop,
        start_ns=nanoseconds(start, rate_hz),
        stop_ns=nanoseconds(stop, rate_hz),
        residual_ns=residual_ns,
    )
