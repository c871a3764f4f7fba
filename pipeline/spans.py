"""Times to spike frames and back, in integers and fractions: no float decides which frame is exposed."""

import math
from fractions import Fraction

from pipeline.errors import AlignmentError

SECOND_NS = 1_000_000_000
_HALF = Fraction(1, 2)


def span_of(
    start_ns: int | Fraction, stop_ns: int | Fraction, rate_hz: Fraction, resolution_ns: int = 1
) -> tuple[int, int, int]:
    """Spike frames exposed during [start_ns, stop_ns): those whose middle, (i + 1/2) / rate, lies in it.

    A stamp as near to the beginning or the middle of a spike frame as its log's resolution is taken to mean exactly
    that, so that the rounding of a log cannot add or lose a frame.

    Returns:
        (start, stop, residual_ns): the span, and how far its farther edge is from the stamp.

    Raises:
        AlignmentError: the log is too coarse to tell one spike frame from the next.
    """
    start, start_residual = _edge(start_ns, rate_hz, resolution_ns)
    stop, stop_residual = _edge(stop_ns, rate_hz, resolution_ns)
    return start, stop, max(start_residual, stop_residual)


def frame_at(instant_ns: int | Fraction, rate_hz: Fraction, resolution_ns: int = 1) -> int:
    """The spike frame [i, i + 1) / rate that holds an instant; one that only rounding puts before i is in it."""
    position = instant_ns * rate_hz / SECOND_NS
    nearest = math.floor(position + _HALF)
    return nearest if abs(position - nearest) <= resolution_ns * rate_hz / SECOND_NS else math.floor(position)


def nanoseconds(spike_frame: int | Fraction, rate_hz: Fraction) -> int:
    """The instant at which a spike frame begins, or of a point within it, to the nearest nanosecond."""
    return round(spike_frame * SECOND_NS / rate_hz)


def _edge(stamp_ns: int | Fraction, rate_hz: Fraction, resolution_ns: int) -> tuple[int, int]:
    """The first spike frame whose middle is at or after the stamp, and how far its beginning is from it."""
    position = stamp_ns * rate_hz / SECOND_NS
    slack = resolution_ns * rate_hz / SECOND_NS
    beginning, middle = math.floor(position + _HALF), math.floor(position) + _HALF
    if position != beginning and slack >= _HALF:
        raise AlignmentError(
            f"stamps of {resolution_ns} ns cannot tell spike frames of {round(SECOND_NS / rate_hz)} ns apart",
            "write the log with more decimals or in a smaller unit",
        )
    if abs(position - beginning) <= slack:
        frame = beginning
    elif abs(position - middle) <= slack:
        frame = math.floor(middle)
    else:
        frame = math.ceil(position - _HALF)
    return frame, round(abs(position - frame) * SECOND_NS / rate_hz)
