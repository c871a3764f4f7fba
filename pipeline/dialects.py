"""The rows of alignment logs: two dialects, recognised by their header line.

- "seconds": `frame_idx,t0,t1,event_count,seq`, seconds with a fixed number of decimals and `seq` as
  `<split>/<sequence>` (written by S-VRT scripts/prepare_data.py). `event_count` is checked and not used.
- "csv": `frame,start_<unit>,stop_<unit>` with the unit ns, us, ms or s, and optionally `sequence`.

Decimals are read exactly; no float is involved.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AlignmentError

UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_SECONDS_HEADER = "frame_idx,t0,t1,event_count,seq"
_CSV_HEADER = re.compile(r"frame,start_(ns|us|ms|s),stop_(ns|us|ms|s)(,sequence)?")
_DECIMAL = re.compile(r"([+-]?)([0-9]{1,18})(?:\.([0-9]{0,18}))?")
_INTEGER = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedExposure:
    """One row of a log: frame `frame` of `sequence` was exposed over [start_ns, stop_ns).

    `frame` is the stem of the frame's file, or in the dialect "seconds" its number without leading zeros;
    `sequence` is None when the log is about one sequence only. `line` counts from 1.
    """

    frame: str
    sequence: str | None
    start_ns: int
    stop_ns: int
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
class Dialect:
    """How the rows of one log are read: `sequence_field` is where they name their sequence, if they do."""

    name: str
    unit_ns: int
    num_fields: int
    sequence_field: int | None
    parse: Callable[[str, int], tuple[LoggedExposure, int]]
    """A row's text and line number to its exposure and its number of decimals."""


def recognise(path: Path, header: str, dialect: str | None) -> Dialect:
    """The dialect that a log's first line announces.

    Raises:
        AlignmentError: none that is known, or not the one that was asked for.
    """
    if header == _SECONDS_HEADER and dialect in (None, "seconds"):
        unit_ns = UNITS_NS["s"]
        return Dialect(name="seconds", unit_ns=unit_ns, num_fields=5, sequence_field=4, parse=_parse_seconds)
    match = _CSV_HEADER.fullmatch(header)
    if match and match[1] == match[2] and dialect in (None, "csv"):
        unit_ns, num_fields = UNITS_NS[match[1]], 4 if match[3] else 3
        parse = functools.partial(_parse_csv, unit_ns=unit_ns, num_fields=num_fields)
        sequence_field = 3 if match[3] else None
        return Dialect(
            name="csv", unit_ns=unit_ns, num_fields=num_fields, sequence_field=sequence_field, parse=parse
        )
    headers = {"seconds": _SECONDS_HEADER, "csv": "frame,start_us,stop_us"}
    wanted = headers.get(dialect or "") or " or ".join(headers.values())
    raise AlignmentError(
        f"{path}:1: header {header[:120]!r}, expected {wanted}",
        "the unit may also be ns, ms or s, the same for both",
    )


def _parse_seconds(text: str, line: int) -> tuple[LoggedExposure, int]:
    index, start, stop, count, sequence = _fields(text, 5)
    if not _INTEGER.fullmatch(index):
        raise RowError(f"frame_idx {index!r} is not a whole number")
    _exact_ns(count, 1, "event_count")
    return _exposure(str(int(index)), sequence.replace("\\", "/"), start, stop, UNITS_NS["s"], line)


def _parse_csv(text: str, line: int, *, unit_ns: int, num_fields: int) -> tuple[LoggedExposure, int]:
    frame, start, stop, *sequence = _fields(text, num_fields)
    return _exposure(frame, sequence[0] if sequence else None, start, stop, unit_ns, line)


def _fields(text: str, wanted: int) -> list[str]:
    values = [value.strip() for value in text.split(",")]
    if len(values) != wanted:
        raise RowError(f"{len(values)} values, expected {wanted},")
    if not all(values):
        raise RowError("an empty value")
    return values


def _exposure(
    frame: str, sequence: str | None, start: str, stop: str, unit_ns: int, line: int
) -> tuple[LoggedExposure, int]:
    start_ns, start_places = _exact_ns(start, unit_ns, "start")
    stop_ns, stop_places = _exact_ns(stop, unit_ns, "stop")
    if start_ns == stop_ns == 0:
        raise RowError("a 0.0,0.0 placeholder instead of an exposure")
    if start_ns < 0:
        raise RowError(f"exposure starts at {start}, before the recording")
    if stop_ns <= start_ns:
        raise RowError(f"exposure [{start}, {stop}) is {'empty' if stop_ns == start_ns else 'reversed'}")
    row = LoggedExposure(frame=frame, sequence=sequence, start_ns=start_ns, stop_ns=stop_ns, line=line)
    return row, max(start_places, stop_places)


def _exact_ns(text: str, unit_ns: int, what: str) -> tuple[int, int]:
    """A decimal as whole nanoseconds (what is finer is rounded to even), and its number of decimals."""
    match = _DECIMAL.fullmatch(text)
    if not match:
        raise RowError(f"{what} {text!r} is not a decimal number")
    sign, whole, decimals = match[1], match[2], match[3] or ""
    scaled, one = int(whole + decimals) * unit_ns, 10 ** len(decimals)
    quotient, rest = divmod(scaled, one)
    quotient += 2 * rest > one or (2 * rest == one and quotient % 2 == 1)
    return (-quotient if sign == "-" else quotient), len(decimals)


def bad_row(dialect: Dialect, text: str, line: int, problem: RowError) -> BadRow:
    """The account of a row that did not parse, with its frame and sequence where it has all its fields."""
    values = [value.strip() for value in text.split(",")]
    whole = len(values) == dialect.num_fields
    sequence = values[dialect.sequence_field] if whole and dialect.sequence_field is not None else ""
    frame = values[0] if whole else ""
    if dialect.name == "seconds" and _INTEGER.fullmatch(frame):
        frame = str(int(frame))
    reason = f"{problem} in {text[:120]!r}"
    return BadRow(line=line, reason=reason, sequence=sequence.replace("\\", "/") or None, frame=frame or None)
