"""Alignment logs: when each RGB frame was exposed, on the spike clock, in integer nanoseconds.

Nothing is filled in for a row that is wrong or missing: it is an error, or is set aside with its reason.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import AlignmentError
from pipeline.files import write_atomic
from pipeline.inputs import read_small_text
from pipeline.logs.dialects import Table, described, recognise
from pipeline.logs.pairs import read_pairs
from pipeline.logs.rows import BadRow, LoggedExposure, Row, RowError, SyncRow
from pipeline.logs.settings import TimestampColumns

MAX_LOG_BYTES = 64 << 20
MAX_LISTED = 8
"""Rows named in one error message; the rest are counted."""
FEWEST_TO_COMPARE = 2
"""Rows that must agree on how they are written before one that is shorter was cut short."""
R = TypeVar("R", LoggedExposure, SyncRow)


@dataclass(frozen=True, kw_only=True)
class ExposureLog:
    """The usable rows of a log, and what is wrong with the others.

    Attributes:
        path: the file.
        dialect: "seconds", "indices", "csv" or "pairs"; "columns" for a table that the manifest describes.
        unit: of its times: "ns", or "spike frames" in the dialect "indices".
        by_order: it names no frames: its k-th row is about the k-th frame.
        resolution_ns: the last decimal place of its stamps: how far rounding may have moved them.
        cut_line: the number of its last line, where no line break ends it.
        rows: exposures, in the order of the file.
        sync: what it says of the clock of the spikes, in the order of the file.
        bad_rows: rows set aside; empty unless `read_log` was told to quarantine.
    """

    path: Path
    dialect: str
    unit: Literal["ns", "spike frames"] = "ns"
    by_order: bool = False
    resolution_ns: int
    cut_line: int | None = None
    rows: tuple[LoggedExposure, ...]
    sync: tuple[SyncRow, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()

    def of(self, *names: str) -> dict[str, LoggedExposure]:
        """Rows by frame, of the first of the `names` that the log knows, or of a log without sequences."""
        return {row.frame: row for row in _first_of(self._by_sequence, names)}

    def sync_of(self, *names: str) -> tuple[SyncRow, ...]:
        """The sync rows of the first of the `names` that has some, or of a log without sequences."""
        return tuple(_first_of(self._sync_by_sequence, names))

    def bad_of(self, *names: str) -> tuple[BadRow, ...]:
        """The bad rows that are of one of the sequences `names`, or may be."""
        return tuple(row for row in self.bad_rows if row.sequence is None or row.sequence in names)

    @property
    def sequences(self) -> tuple[str | None, ...]:
        """The sequences that have usable rows, in the order of the file."""
        return tuple(self._by_sequence)

    @functools.cached_property
    def _by_sequence(self) -> dict[str | None, list[LoggedExposure]]:
        return _by_sequence(self.rows)

    @functools.cached_property
    def _sync_by_sequence(self) -> dict[str | None, list[SyncRow]]:
        return _by_sequence(self.sync)


def read_log(
    path: Path,
    dialect: str | None = None,
    *,
    quarantine: bool = False,
    columns: TimestampColumns | None = None,
    stamp: str | None = None,
) -> ExposureLog:
    """Read an alignment log.

    Args:
        path: the log.
        dialect: what its header must then announce; None recognises it by the header.
        quarantine: set bad rows aside in `bad_rows` instead of raising.
        columns: how to read a table of no known dialect.
        stamp: what the stamps of the dialect "pairs" are: "start" (also where nothing is said), "middle" or "end".

    Raises:
        FormatError: no such file, or not a text file.
        AlignmentError: unknown header; or, naming file, line and value: a row with another number of fields,
            a value that is no number, a `0.0,0.0` placeholder, a time before 0, an empty or reversed span, a last
            line that was cut short, a frame that has two rows (neither is then used).
    """
    path = Path(path)
    lines = read_small_text(path, "alignment log", MAX_LOG_BYTES).split("\n")
    header = lines[0].strip()
    table = described(path, header, columns) if columns else recognise(path, header, dialect)
    if table is None:
        found: Iterable[Row | BadRow] = read_pairs(_data_lines(lines, first=1), stamp or "start")
    else:
        found = _table_rows(table, _data_lines(lines, first=2))
    parsed, bad = _sorted_out(found)
    if lines[-1].strip():
        _drop_cut_row(parsed, bad, len(lines), lines[-1])
    rows = _drop_duplicates([row.exposure for row in parsed if row.exposure], bad)
    bad.sort(key=lambda row: row.line)
    if bad and not quarantine:
        raise AlignmentError(_listed(path, bad), "correct the log, or set the rows aside with --quarantine")
    finest = [row.resolution for row in parsed if row.exposure] or [row.resolution for row in parsed]
    return ExposureLog(
        path=path,
        dialect="pairs" if table is None else table.name,
        unit="spike frames" if table is not None and table.in_frames else "ns",
        by_order=table is None or table.by_order,
        resolution_ns=max(1, -(-min(finest, default=Fraction(1)) // 1)),
        cut_line=len(lines) if lines[-1].strip() else None,
        rows=tuple(rows),
        sync=tuple(row.sync for row in parsed if row.sync),
        bad_rows=tuple(bad),
    )


def write_log(
    path: Path,
    frames: Sequence[str],
    start_ns: npt.NDArray[np.int64],
    stop_ns: npt.NDArray[np.int64],
    sharp_ns: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write the exposures of one sequence in the dialect "csv", in nanoseconds.

    Args:
        path: the file.
        frames: N names.
        start_ns, stop_ns: (N,) their exposures.
        sharp_ns: (N,) the instants of their sharp frames; None says nothing of them.

    Raises:
        ValueError: lengths differ, or a frame name holds a comma or line break.
    """
    if bad := [frame for frame in frames if re.search(r"[,\r\n]", frame) or frame != frame.strip()]:
        raise ValueError(f"frame name {bad[0]!r} cannot be written to a log")
    columns = {"start_ns": start_ns, "stop_ns": stop_ns} | (
        {} if sharp_ns is None else {"sharp_ns": sharp_ns}
    )
    header = ["frame", *columns]
    rows = ([frame, *map(int, times)] for frame, *times in zip(frames, *columns.values(), strict=True))
    write_atomic(Path(path), "".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))


def _data_lines(lines: Sequence[str], first: int) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(lines[first - 1 :], start=first):
        if text.strip():
            yield number, text.strip()


def _table_rows(table: Table, lines: Iterable[tuple[int, str]]) -> Iterator[Row | BadRow]:
    for place, (number, text) in enumerate(lines):
        try:
            yield table.parse(text, number, place)
        except RowError as problem:
            yield table.bad_row(text, number, problem, place)


def _sorted_out(found: Iterable[Row | BadRow]) -> tuple[list[Row], list[BadRow]]:
    parsed: list[Row] = []
    bad: list[BadRow] = []
    for row in found:
        if isinstance(row, Row):
            parsed.append(row)
        else:
            bad.append(row)
    return parsed, bad


def _drop_cut_row(parsed: list[Row], bad: list[BadRow], cut_line: int, text: str) -> None:
    """Set aside a last row without a line break whose last value was cut short.

    Its decimals are fewer than those that all others have; or it has none and is far below all others, which are of
    one length. A cut that leaves all digits, or whole rows, does not show here; frames without a row are missed later.
    """
    cut = parsed[-1] if parsed else None
    if cut is None or cut.exposure is None or cut.exposure.line != cut_line or not cut.times:
        return
    others = [row.times for row in parsed[:-1] if row.times]
    if len(others) >= FEWEST_TO_COMPARE and _is_cut(cut.times, others):
        parsed.pop()
        row, reason = (
            cut.exposure,
            f"shorter than all other rows and no line break: cut short in {text[:120]!r}",
        )
        bad.append(BadRow(line=row.line, reason=reason, sequence=row.sequence, frame=row.frame))


def _is_cut(times: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> bool:
    """Whether the last of `times` is shorter than in all others, which are all written in one way."""
    styles = {tuple(map(_decimals, other)) for other in others}
    style = tuple(map(_decimals, times))
    if len(styles) > 1 or style[:-1] != (usual := styles.pop())[:-1]:
        return False
    if usual[-1]:
        return style[-1] < usual[-1]
    last, lengths = Fraction(times[-1]), {len(other[-1]) for other in others}
    return len(lengths) == 1 and all(5 * last < Fraction(other[-1]) for other in others)


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _by_sequence(rows: Iterable[R]) -> dict[str | None, list[R]]:
    index: dict[str | None, list[R]] = {}
    for row in rows:
        index.setdefault(row.sequence, []).append(row)
    return index


def _first_of(index: Mapping[str | None, list[R]], names: Sequence[str]) -> list[R]:
    return next((index[name] for name in (*names, None) if name in index), [])


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
