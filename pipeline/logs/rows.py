"""What one row of an alignment log says. Decimals are read exactly; no float is involved."""

import re
from dataclasses import dataclass
from fractions import Fraction

UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DECIMAL = re.compile(r"([+-]?)([0-9]{1,18})(?:\.([0-9]{0,18}))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedExposure:
    """One row of a log: frame `frame` of `sequence` was exposed over [start, stop).

    Attributes:
        frame: the stem of the frame's file; in the dialect "seconds" its number, in "indices" its name, both without
            leading zeros; in logs that name no frames its place, from 0.
        sequence: None when the log is about one sequence only.
        start, stop: nanoseconds; spike frames in the dialect "indices" (`ExposureLog.unit`).
        line: counts from 1.
        sharp: the instant of the sharp frame, in the unit of `start`; None where the log does not tell it.
    """

    frame: str
    sequence: str | None
    start: int
    stop: int
    line: int
    sharp: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRow:
    """Spike frame `spike_index` of `sequence` began at `stamp_ns` of the log's clock."""

    spike_index: int
    sequence: str | None
    stamp_ns: int
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that cannot be used, and, as far as it can be told, of which frame of which sequence."""

    line: int
    reason: str
    sequence: str | None = None
    frame: str | None = None


class RowError(Exception):
    """What is wrong with one row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one row says.

    Attributes:
        resolution: how far rounding may have moved its stamps, in the unit of `LoggedExposure.start`.
        times: its times as they are written, in the order of the columns, where the last value is a time.
    """

    exposure: LoggedExposure | None
    sync: SyncRow | None
    resolution: Fraction
    times: tuple[str, ...] = ()


def span_around(what: str, stamp: int, length: int) -> tuple[int, int]:
    """[start, stop) of an exposure of some length by its start, middle or stop; half a unit is rounded down."""
    start = {"start": stamp, "middle": stamp - length // 2, "stop": stamp - length}[what]
    return start, start + length


def exact_ns(text: str, unit_ns: int, what: str) -> tuple[int, int]:
    """A decimal as whole nanoseconds (what is finer is rounded to even), and its number of decimals.

    Raises:
        RowError: not a decimal number.
    """
    match = _DECIMAL.fullmatch(text)
    if not match:
        raise RowError(f"{what} {text!r} is not a decimal number")
    sign, whole, decimals = match[1], match[2], match[3] or ""
    scaled, one = int(whole + decimals) * unit_ns, 10 ** len(decimals)
    quotient, rest = divmod(scaled, one)
    quotient += 2 * rest > one or (2 * rest == one and quotient % 2 == 1)
    return (-quotient if sign == "-" else quotient), len(decimals)
