"""Alignment logs: when each RGB frame was exposed, on the spike clock, in integer nanoseconds.

Nothing is filled in for a row that is wrong or missing: it is an error, or is set aside with its reason.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.dialects import BadRow, LoggedExposure, RowError, bad_row, recognise
from pipeline.errors import AlignmentError
from pipeline.files import write_atomic
from pipeline.inputs import read_small_text

MAX_LOG_BYTES = 64 << 20
MAX_LISTED = 8
"""Rows named in one error message; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class ExposureLog:
    """The usable rows of a log, and what is wrong with the others.

    Attributes:
        path: the file.
        dialect: "seconds" or "csv".
        resolution_ns: the last decimal place of its stamps: how far rounding may have moved them.
        rows: in the order of the file.
        bad_rows: rows set aside; empty unless `read_log` was told to quarantine.
    """

    path: Path
    dialect: str
    resolution_ns: int
    rows: tuple[LoggedExposure, ...]
    bad_rows: tuple[BadRow, ...] = ()

    def of(self, *names: str) -> dict[str, LoggedExposure]:
        """Rows by frame, of the first of the `names` that the log knows, or of a log without sequences."""
        for name in (*names, None):
            if name in self._by_sequence:
                return self._by_sequence[name]
        return {}

    def bad_of(self, *names: str) -> tuple[BadRow, ...]:
        """The bad rows that are of one of the sequences `names`, or may be."""
        return tuple(row for row in self.bad_rows if row.sequence is None or row.sequence in names)

    @functools.cached_property
    def _by_sequence(self) -> dict[str | None, dict[str, LoggedExposure]]:
        index: dict[str | None, dict[str, LoggedExposure]] = {}
        for row in self.rows:
            index.setdefault(row.sequence, {})[row.frame] = row
        return index


def read_log(path: Path, dialect: str | None = None, *, quarantine: bool = False) -> ExposureLog:
    """Read an alignment log.

    Args:
        path: the log.
        dialect: "seconds" or "csv", which its header must then be; None recognises it by the header.
        quarantine: set bad rows aside in `problems` instead of raising.

    Raises:
        FormatError: no such file, or not a text file.
        AlignmentError: unknown header; or, naming file, line and value: a row with another number of fields,
            a value that is no number, a `0.0,0.0` placeholder, a time before 0, an empty or reversed span, a
            frame that has two rows (neither is then used).
    """
    path = Path(path)
    lines = read_small_text(path, "alignment log", MAX_LOG_BYTES).split("\n")
    dialect_of = recognise(path, lines[0].strip(), dialect)
    rows: list[LoggedExposure] = []
    bad: list[BadRow] = []
    decimals = 0
    for number, text in _data_lines(lines):
        try:
            row, places = dialect_of.parse(text, number)
            rows.append(row)
            decimals = max(decimals, places)
        except RowError as problem:
            bad.append(bad_row(dialect_of, text, number, problem))
    rows = _drop_duplicates(rows, bad)
    bad.sort(key=lambda row: row.line)
    if bad and not quarantine:
        raise AlignmentError(_listed(path, bad), "correct the log, or set the rows aside with --quarantine")
    return ExposureLog(
        path=path,
        dialect=dialect_of.name,
        resolution_ns=max(1, -(-dialect_of.unit_ns // 10**decimals)),
        rows=tuple(rows),
        bad_rows=tuple(bad),
    )


def write_log(
    path: Path, frames: Sequence[str], start_ns: npt.NDArray[np.int64], stop_ns: npt.NDArray[np.int64]
) -> None:
    """Write the exposures of one sequence in the dialect "csv", in nanoseconds.

    Raises:
        ValueError: lengths differ, or a frame name holds a comma or line break.
    """
    if bad := [frame for frame in frames if re.search(r"[,\r\n]", frame) or frame != frame.strip()]:
        raise ValueError(f"frame name {bad[0]!r} cannot be written to a log")
    rows = zip(frames, start_ns, stop_ns, strict=True)
    lines = ["frame,start_ns,stop_ns", *(f"{frame},{int(start)},{int(stop)}" for frame, start, stop in rows)]
    write_atomic(Path(path), "\n".join(lines) + "\n")


def _data_lines(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(lines[1:], start=2):
        if text.strip():
            yield number, text.strip()


def _drop_duplicates(rows: list[LoggedExposure], bad: list[BadRow]) -> list[LoggedExposure]:
    """The rows whose frame has no other row; the others are added to `bad`."""
    same: dict[tuple[str | None, str], list[LoggedExposure]] = {}
    for row in rows:
        same.setdefault((row.sequence, row.frame), []).append(row)
    for (sequence, frame), found in same.items():
        if len(found) > 1:
            of = f" of {sequence}" if sequence else ""
            where = ", ".join(str(row.line) for row in found)
            reason = f"frame {frame}{of} appears {len(found)} times: lines {where}"
            bad.extend(BadRow(line=row.line, reason=reason, sequence=sequence, frame=frame) for row in found)
    return [row for row in rows if len(same[row.sequence, row.frame]) == 1]


def _listed(path: Path, bad: list[BadRow]) -> str:
    shown = [f"{path}:{row.line}: {row.reason}" for row in bad[:MAX_LISTED]]
    if len(bad) > MAX_LISTED:
        shown.append(f"and {len(bad) - MAX_LISTED} more rows")
    return "\n".join(shown)
