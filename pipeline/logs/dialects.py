"""The rows of alignment logs: dialects, recognised by their first line, and tables that a manifest describes.

- "seconds": `frame_idx,t0,t1,event_count,seq`, seconds with a fixed number of decimals and `seq` as
  `<split>/<sequence>` (written by S-VRT scripts/prepare_data.py). `event_count` is checked and not used.
- "indices": `split,scene,sub,frame,t0_idx,t1_idx,events`: spike frames [t0_idx, t1_idx); the sequence is
  `<split>/<scene>/<sub>`, without `/<sub>` where that is empty. `events` is checked and not used.
- "csv": `frame,start_<unit>,stop_<unit>` with the unit ns, us, ms or s, and optionally `sharp_<unit>`, `sequence` and
  `spike_index`. `sharp` is the instant of the exposure that the frame's sharp image shows.
  A row whose `spike_index` is filled is a *sync row*: at its `start` that spike frame began. Its frame and stop may
  both be empty: it is then about the clock alone.
- "pairs": no header; two lines for each frame, in order: `>unix standard time stamp:1763626982s,598990us` (the
  microseconds are not padded: `983s,27382us` is 983.027382 s) and `Exp Time:13265 us,Gain:1`. See `pairs.py`.

Decimals are read exactly; no float is involved.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from pipeline.errors import AlignmentError
from pipeline.logs.rows import UNITS_NS, BadRow, LoggedExposure, Row, RowError, SyncRow, exact_ns, span_around
from pipeline.logs.settings import TimestampColumns

PAIRS_FIRST_LINE = ">unix standard time stamp:"
_SECONDS_HEADER = "frame_idx,t0,t1,event_count,seq"
_INDICES_HEADER = "split,scene,sub,frame,t0_idx,t1_idx,events"
_CSV_HEADER = re.compile(
    r"frame,start_(ns|us|ms|s),stop_\1(,sharp_\1)?((?:,sequence)?(?:,spike_index)?|,spike_index,sequence)"
)
_HEADERS = {
    "seconds": _SECONDS_HEADER,
    "indices": _INDICES_HEADER,
    "csv": "frame,start_us,stop_us",
    "pairs": f"{PAIRS_FIRST_LINE}...",
}
_STAMPS = ("start", "middle", "stop")
_TIMES = (*_STAMPS, "duration", "sharp")
_INTEGER = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """How the rows of one log are read.

    Attributes:
        name: of the dialect; "columns" for a table that the manifest describes.
        delimiter: between values; a blank is any number of blanks and tabs.
        num_fields: values in a row.
        columns: where each of frame, start, middle, stop, duration, sharp, spike_index is, if there is such a column.
        sequence: columns whose values make the sequence's name.
        counts: columns that must hold numbers, and are not used.
        unit_ns, duration_ns: nanoseconds in one of a time and of a length; 0 where times are spike frames.
        numbered: frames are numbers, written with or without leading zeros.
        spike_clock: times before 0 are before the recording.
    """

    name: str
    delimiter: str
    num_fields: int
    columns: Mapping[str, int]
    sequence: tuple[int, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    unit_ns: int
    duration_ns: int = 0
    numbered: bool = False
    spike_clock: bool = True

    @property
    def in_frames(self) -> bool:
        """Whether its times are spike frames."""
        return self.unit_ns == 0

    @property
    def by_order(self) -> bool:
        """Whether its k-th row is about the k-th frame, which it does not name."""
        return "frame" not in self.columns

    def parse(self, text: str, line: int, place: int = 0) -> Row:
        """Read one row, the one at `place` from 0.

        Raises:
            RowError: what is wrong with it.
        """
        values = self._fields(text)
        needed = {k for name, k in self.columns.items() if name != "spike_index"} | set(self.counts.values())
        may_be_empty = set(self.sequence[2:])  # the sub-scene of the dialect "indices"
        beside_stamp = {k for name, k in self.columns.items() if name not in (self._stamp, "spike_index")}
        sync_only = "spike_index" in self.columns and not any(values[k] for k in beside_stamp)
        if sync_only and values[self.columns["spike_index"]]:
            may_be_empty |= beside_stamp
        if not all(values[k] for k in (needed | set(self.sequence)) - may_be_empty):
            raise RowError("an empty value")
        for name, k in self.counts.items():
            exact_ns(values[k], 1, name)
        sequence = self._sequence_of(values)
        if sync_only:
            stamp, places = exact_ns(values[self.columns[self._stamp]], self.unit_ns, self._stamp)
            sync = self._sync(values, sequence, stamp, line)
            return Row(exposure=None, sync=sync, resolution=Fraction(self.unit_ns, 10**places))
        start, stop, stamp, resolution = self._times(values)
        frame = str(place) if self.by_order else self._frame_of(values)
        sharp = self._sharp(values, start, stop)
        exposure = LoggedExposure(
            frame=frame, sequence=sequence, start=start, stop=stop, line=line, sharp=sharp
        )
        sync = self._sync(values, sequence, stamp, line)
        at = sorted(k for name, k in self.columns.items() if name in _TIMES)
        ends_with_time = not self.in_frames and at[-1] == self.num_fields - 1
        times = tuple(values[k] for k in at) if ends_with_time else ()
        return Row(exposure=exposure, sync=sync, resolution=resolution, times=times)

    def bad_row(self, text: str, line: int, problem: RowError, place: int = 0) -> BadRow:
        """The account of a row that did not parse, with its frame and sequence where it has all its fields."""
        values = self._split(text)
        sequence = frame = ""
        if len(values) == self.num_fields:
            sequence = self._sequence_of(values) or ""
            with_frame = "" if self.by_order else values[self.columns["frame"]]
            plain = not self.numbered or (self.name == "seconds" and not _INTEGER.fullmatch(with_frame))
            frame = with_frame if plain else _without_zeros(with_frame)
        frame = str(place) if self.by_order else frame
        reason = f"{problem} in {text[:120]!r}"
        return BadRow(line=line, reason=reason, sequence=sequence or None, frame=frame or None)

    def _split(self, text: str) -> list[str]:
        return [value.strip() for value in text.split(None if self.delimiter == " " else self.delimiter)]

    def _fields(self, text: str) -> list[str]:
        values = self._split(text)
        if len(values) != self.num_fields:
            raise RowError(f"{len(values)} values, expected {self.num_fields},")
        return values

    @property
    def _stamp(self) -> str:
        """The time column that sync rows are about."""
        return next(name for name in _STAMPS if name in self.columns)

    def _sequence_of(self, values: list[str]) -> str | None:
        if not self.sequence:
            return None
        return "/".join(values[k] for k in self.sequence if values[k]).replace("\\", "/")

    def _frame_of(self, values: list[str]) -> str:
        frame = values[self.columns["frame"]]
        if self.name == "seconds" and not _INTEGER.fullmatch(frame):
            raise RowError(f"frame_idx {frame!r} is not a whole number")
        return _without_zeros(frame) if self.numbered else frame

    def _sync(self, values: list[str], sequence: str | None, stamp: int, line: int) -> SyncRow | None:
        text = values[self.columns["spike_index"]] if "spike_index" in self.columns else ""
        if not text:
            return None
        if not _INTEGER.fullmatch(text):
            raise RowError(f"spike_index {text!r} is not a whole number")
        return SyncRow(spike_index=int(text), sequence=sequence, stamp_ns=stamp, line=line)

    def _sharp(self, values: list[str], start: int, stop: int) -> int | None:
        if "sharp" not in self.columns:
            return None
        text = values[self.columns["sharp"]]
        sharp, _ = exact_ns(text, self.unit_ns, "sharp")
        if not start <= sharp < stop:
            raise RowError(f"sharp {text!r} is not within the exposure")
        return sharp

    def _times(self, values: list[str]) -> tuple[int, int, int, Fraction]:
        """(start, stop, the first stamp, resolution) of an exposure."""
        if self.in_frames:
            start, stop = (_index(values[self.columns[name]], name) for name in ("start", "stop"))
            _require_span(start, stop, (str(start), str(stop)), from_zero=False, placeholder=True)
            return start, stop, start, Fraction(0)
        found = {name: self.columns[name] for name in _STAMPS if name in self.columns}
        stamps = {name: exact_ns(values[k], self.unit_ns, name) for name, k in found.items()}
        resolution = min(Fraction(self.unit_ns, 10**places) for _, places in stamps.values())
        first = next(iter(stamps.values()))[0]
        if "duration" in self.columns:
            text = values[self.columns["duration"]]
            length, places = exact_ns(text, self.duration_ns, "duration")
            resolution += Fraction(self.duration_ns, 10**places)
            start, stop = span_around(next(iter(stamps)), first, length)
            shown = str(start), str(stop)
        else:
            (start, _), (stop, _) = stamps["start"], stamps["stop"]
            shown = values[found["start"]], values[found["stop"]]
        placeholder = "duration" not in self.columns
        _require_span(start, stop, shown, from_zero=self.spike_clock, placeholder=placeholder)
        return start, stop, first, resolution


def recognise(path: Path, header: str, dialect: str | None) -> Table | None:
    """The table that a log's first line announces; None for the dialect "pairs", which has none.

    Raises:
        AlignmentError: none that is known, or not the one that was asked for.
    """
    if header == _SECONDS_HEADER and dialect in (None, "seconds"):
        return _SECONDS
    if header == _INDICES_HEADER and dialect in (None, "indices"):
        return _INDICES
    if header.startswith(PAIRS_FIRST_LINE) and dialect in (None, "pairs"):
        return None
    match = _CSV_HEADER.fullmatch(header)
    if match and dialect in (None, "csv"):
        sharp = ["sharp"] if match[2] else []
        names = ["frame", "start", "stop", *sharp, *match[3].split(",")[1:]]
        columns = {name: k for k, name in enumerate(names) if name != "sequence"}
        return Table(
            name="csv",
            delimiter=",",
            num_fields=len(names),
            columns=columns,
            sequence=(names.index("sequence"),) if "sequence" in names else (),
            unit_ns=UNITS_NS[match[1]],
            spike_clock="spike_index" not in names,
        )
    wanted = _HEADERS.get(dialect or "") or " or ".join(_HEADERS.values())
    raise AlignmentError(
        f"{path}:1: header {header[:120]!r}, expected {wanted}",
        "the unit may also be ns, ms or s, the same for both; or describe the columns: exposure.timestamps",
    )


def described(path: Path, header: str, settings: TimestampColumns) -> Table:
    """The table that a manifest describes.

    Raises:
        AlignmentError: the header lacks a column, or has one twice.
    """
    names = [name.strip() for name in header.split(None if settings.delimiter == " " else settings.delimiter)]
    wanted = {role: name for role, name in settings.columns.items() if name is not None}
    for name in wanted.values():
        if names.count(name) != 1:
            how_often = "no column" if name not in names else "more than one column"
            raise AlignmentError(
                f"{path}:1: {how_often} {name!r} in {header[:120]!r}",
                "correct exposure.timestamps in the manifest: its columns, its delimiter",
            )
    at = {role: names.index(name) for role, name in wanted.items()}
    sequence = at.pop("sequence", None)
    return Table(
        name="columns",
        delimiter=settings.delimiter,
        num_fields=len(names),
        columns=at,
        sequence=() if sequence is None else (sequence,),
        unit_ns=UNITS_NS[settings.unit],
        duration_ns=UNITS_NS[settings.duration_unit or settings.unit],
        spike_clock=settings.spike_index is None,
    )


def _index(text: str, what: str) -> int:
    if not _INTEGER.fullmatch(text.removeprefix("-")):
        raise RowError(f"{what} {text!r} is not a whole number of spike frames")
    return int(text)


def _without_zeros(frame: str) -> str:
    return (frame.lstrip("0") or "0") if frame.isascii() and frame.isdecimal() else frame


def _require_span(
    start: int, stop: int, shown: tuple[str, str], *, from_zero: bool, placeholder: bool
) -> None:
    if placeholder and start == stop == 0:
        raise RowError("a 0.0,0.0 placeholder instead of an exposure")
    if from_zero and start < 0:
        raise RowError(f"exposure starts at {shown[0]}, before the recording")
    if stop <= start:
        span = f"[{shown[0]}, {shown[1]})"
        raise RowError(f"exposure {span} is {'empty' if stop == start else 'reversed'}")


_SECONDS = Table(
    name="seconds",
    delimiter=",",
    num_fields=5,
    columns={"frame": 0, "start": 1, "stop": 2},
    sequence=(4,),
    counts={"event_count": 3},
    unit_ns=UNITS_NS["s"],
    numbered=True,
)
_INDICES = Table(
    name="indices",
    delimiter=",",
    num_fields=7,
    columns={"frame": 3, "start": 4, "stop": 5},
    sequence=(0, 1, 2),
    counts={"events": 6},
    unit_ns=0,
    numbered=True,
)
