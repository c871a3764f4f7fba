"""What a manifest says about a timestamp log that the log does not say itself: its columns, its clock."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Unit = Literal["ns", "us", "ms", "s"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimestampColumns:
    """A table with a header line whose columns have names of their own.

    An exposure is `start` and `stop`, or one of `start`, `middle` and `stop` and its `duration`.

    Attributes:
        frame: column of the frame's name; None when the k-th row is the k-th frame.
        sequence: column of the sequence's name; None when the table is about one sequence.
        start, middle, stop, duration: columns of times and of the exposure's length.
        unit, duration_unit: of the times and of the length; the same where `duration_unit` is None.
        spike_index: column of sync rows: where it is filled, that spike frame began at the instant of the row's
            `start` (`middle` or `stop`, where that is the one there is).
        delimiter: between values; a blank stands for any number of blanks and tabs.
    """

    frame: str | None = None
    sequence: str | None = None
    start: str | None = None
    middle: str | None = None
    stop: str | None = None
    duration: str | None = None
    unit: Unit
    duration_unit: Unit | None = None
    spike_index: str | None = None
    delimiter: Literal[",", ";", "\t", "|", " "] = ","

    def __post_init__(self) -> None:
        stamps = [name for name in ("start", "middle", "stop") if getattr(self, name) is not None]
        if stamps != ["start", "stop"] and (len(stamps) != 1 or self.duration is None):
            raise ValueError("declare start and stop, or one of start, middle and stop with duration")
        if stamps == ["start", "stop"] and self.duration is not None:
            raise ValueError("start and stop say all about an exposure: leave duration out")
        if self.duration is None and self.duration_unit is not None:
            raise ValueError("duration_unit goes with duration")
        if self.frame is None and self.sequence is not None:
            raise ValueError("sequence goes with frame: without it the table is about one sequence")
        if self.frame is None and self.spike_index is not None:
            raise ValueError("spike_index goes with frame: without it every row is a frame")
        names = [name for name in self.columns.values() if name is not None]
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(f"columns {', '.join(map(repr, names))} must be different names")

    @property
    def columns(self) -> dict[str, str | None]:
        """The column of each thing that a row tells."""
        roles = ("frame", "sequence", "start", "middle", "stop", "duration", "spike_index")
        return {role: getattr(self, role) for role in roles}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogClock:
    """What the stamps of a log mean on the clock of the spikes.

    Attributes:
        stamp: what the one stamp of an entry is (dialect "pairs").
        origin: when spike frame 0 began on the log's clock, in ns: a whole number; or `first_frame`, when both cameras
            start together, so that it is the beginning of the first exposure. None: at 0, or as sync rows say.
    """

    stamp: Literal["start", "middle", "end"] | None = None
    origin: int | Literal["first_frame"] | None = None


def check_clock(clock: LogClock, dialect: str | None, log_rate_hz: Fraction | None) -> None:
    """Raise ValueError where the settings of a log cannot all be meant."""
    if clock.stamp is not None and dialect not in (None, "pairs"):
        raise ValueError("clock.stamp goes with the dialect pairs; other logs say what their stamps are")
    if dialect == "indices" and (clock.origin is not None or log_rate_hz is not None):
        raise ValueError("a log of spike frame indices has no clock: leave clock and log_rate_hz out")
    if dialect == "pairs" and (clock.stamp is None or clock.origin is None):
        raise ValueError(
            "the dialect pairs needs clock: {stamp: start|middle|end, origin: first_frame or ns}"
        )
