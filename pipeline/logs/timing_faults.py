"""What the exposures of a sequence tell about their own clock: rate, jitter, gaps, resets, steps.

Frames are taken in their own order. The period is that of the intervals between neighbours that are near the median,
the jitter their robust deviation. A frame whose stamp does not lie a whole number of periods after the last good one,
give or take what the jitter explains, is either alone in that, and then out of order or a stray, or the first of many:
then the clock was reset or stepped, and nothing after it can be trusted.

What cannot be seen in a log alone: an offset or a drift of its clock (sync rows show both); a step smaller than
`Timing.detects`; a step forward by a whole number of periods, which looks like frames that were dropped and is
accounted as such; a unit that is wrong in every row; two faults that meet within a few frames of each other. With
fewer than four frames only a clock that runs backwards shows.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.logs.timing import Fault, Kind, Stamped, Timing, Verdict

FEWEST = 4
"""Frames below which there is no telling what is usual."""
SPREADS = 10
"""Deviations by which a stamp may be off before it is a fault; more for few frames, whose deviation is uncertain."""
FEW_INTERVALS = 8
"""Intervals below which a deviation is not known well enough, unless there is none."""
VERY_FEW_INTERVALS = 5
"""Intervals that agree by chance too often: what is off by less than an eighth of the period is then let pass."""
UNIT_FACTOR = 100
"""From one frame to the next, exposures or intervals that change by this factor are in another unit."""
ROUNDINGS = 3
"""Resolutions by which an interval may be off: rounding moves it by one, and hides jitter that moves it by more."""
MAX_STRAYS = 3
MAX_RETRACTED = 2
FEWEST_BEFORE = 3
"""Frames that must agree before a fault, so that what comes after is wrong and not they."""
MIN_RUN = 3
"""Irregular intervals in a row that are a camera changing its rate, and not a stepped clock."""


def examine_timing(exposures: Sequence[Stamped], *, least: int = 0, resolution: int = 1) -> Timing:
    """Look for what is wrong with the exposures of one sequence.

    Args:
        exposures: in any order; at least one.
        least: what is off by no more than this is not wrong: one spike frame, where its length is known; 0 is a
            thousandth of the period, or what rounding explains.
        resolution: of the stamps: how far rounding may have moved them.
    """
    rows = sorted(exposures, key=lambda row: row.place)
    lengths = sorted(row.stop - row.start for row in rows)
    scale = _scale_of(rows, resolution)
    usual = max(scale.median // 1000, ROUNDINGS * resolution) if scale else 0
    chain = _Chain(rows, scale, least or usual, resolution)
    chain.check_units()
    chain.walk()
    return Timing(
        frames=len(rows),
        verdict=chain.verdict,
        period=_median_interval(rows),
        jitter=scale.jitter if scale else 0,
        detects=chain.limit_of(MAX_STRAYS + MAX_RETRACTED) if scale else None,
        exposure=(lengths[0], lengths[len(lengths) // 2], lengths[-1]),
        gaps=tuple(chain.gaps),
        overlaps=sum(after.start < row.stop for row, after in itertools.pairwise(rows)),
        irregular=chain.irregular,
        faults=tuple(chain.faults),
        distrusted=chain.distrusted,
    )


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """What is usual: the period, exactly; the median interval; the jitter; how many intervals told it.

    Attributes:
        second: the second largest deviation: with few intervals what is left beside one that is wrong.
    """

    period: Fraction
    median: int
    jitter: int
    intervals: int
    second: int


def _median_interval(rows: Sequence[Stamped]) -> int | None:
    found = sorted(b.start - a.start for a, b in itertools.pairwise(rows))
    return found[len(found) // 2] if found else None


def _scale_of(rows: Sequence[Stamped], resolution: int) -> _Scale | None:
    """The period and jitter of the intervals within half the median of it; None when there are too few of them.

    The jitter is the larger of two robust deviations, both as a Gaussian would have them: 1.4826 times the median
    absolute deviation, and the 95 % quantile over 1.96, which sees an interval that only every tenth frame has. The
    two largest deviations do not count, so that one wrong stamp does not hide itself.
    """
    found = sorted(
        b.start - a.start for a, b in itertools.pairwise(rows) if b.place == a.place + 1 and b.start > a.start
    )
    if len(found) < FEWEST - 1:
        return None
    median = found[len(found) // 2]
    near = [interval for interval in found if 2 * abs(interval - median) <= median]
    off = sorted(abs(interval - median) for interval in near)
    kept = off[: max(1, len(off) - len(off) // 20 - 2)]
    jitter = max(off[len(off) // 2] * 14826 // 10000, kept[-1] * 100 // 196)
    usual = [
        interval
        for interval in near
        if abs(interval - median) <= max(SPREADS * jitter, ROUNDINGS * resolution)
    ]
    far = [(x, round(Fraction(x, median))) for x in found if 2 * abs(x - median) > median]
    odd = [
        periods for interval, periods in far if abs(interval - periods * median) > 2 * periods * resolution
    ]
    return _Scale(
        period=Fraction(sum(usual), len(usual)),
        median=median,
        jitter=jitter,
        intervals=len(usual),
        second=off[-1] if odd else off[-2],
    )


class _Chain:
    """Walks over the exposures, from each good one to the next, and keeps account of the others."""

    def __init__(self, rows: Sequence[Stamped], scale: _Scale | None, least: int, resolution: int) -> None:
        self.all = rows
        self.rows = list(rows)
        self.scale, self.least, self.resolution = scale, least, resolution
        self.gaps: list[tuple[int, int]] = []
        self.faults: list[Fault] = []
        self.distrusted: dict[int, str] = {}
        self.irregular = 0

    def limit_of(self, periods: int) -> int:
        """How far off a stamp may be that many periods after the last: jitter, rounding, uncertainty of the period."""
        assert self.scale is not None
        few = 1 + Fraction(8, max(1, self.scale.intervals - 2))
        jitter = self.scale.jitter
        rounding = ROUNDINGS * self.resolution
        if self.scale.intervals < FEW_INTERVALS and (self.scale.second > rounding or rounding > self.least):
            return int(max(self.scale.period, SPREADS * few * jitter))  # nobody knows how regular they are
        wander = Fraction(3 * periods * jitter, _root(self.scale.intervals))
        rounding += Fraction(periods * self.resolution, self.scale.intervals)
        least = self.scale.period / 8 if self.scale.intervals < VERY_FEW_INTERVALS else self.least
        return int(max(SPREADS * few * jitter, rounding, least) + wander)

    @property
    def is_steady(self) -> bool:
        """Whether a stamp shows by itself that it is out of line."""
        return self.scale is not None and 2 * self.limit_of(1) < self.scale.period

    @property
    def verdict(self) -> Verdict:
        """How regular the frames are that were walked over, as far as they tell."""
        if self.scale is None:
            return "too few to tell"
        if self.irregular or self.is_steady:
            return "irregular" if self.irregular else "regular"
        rounding = ROUNDINGS * self.resolution
        if 2 * max(SPREADS * self.scale.jitter, rounding) < self.scale.period:
            return "too few to tell"  # with many frames like these a step would show
        return "irregular" if self.scale.second > rounding else "too coarse to tell"

    def check_units(self) -> None:
        """Set aside what is in another unit: the rows of a passage, if the usual one comes back, else all after it."""
        segments = self._segments()
        if len(segments) == 1:
            return
        first = segments[0]
        at_home = [_ratio(self._length(seg), self._length(first)) < UNIT_FACTOR for seg in segments]
        home = [seg for seg, usual in zip(segments, at_home, strict=True) if usual]
        returns = len(home) > 1 and at_home[-1] and sum(map(len, home)) * 10 >= len(self.rows) * 9
        short = len(first) * 2 < len(self.rows) and not returns
        wrong = segments[0 if short else 1 :]
        if returns:
            wrong = [seg for seg, usual in zip(segments, at_home, strict=True) if not usual]
        for seg in wrong if returns else segments[1:]:
            self._fault("unit", seg[0], self._length(seg))
        unit_row = segments[1][0]
        length, before = (row.stop - row.start for row in (unit_row, segments[0][-1]))
        why = f"exposures change from {before} to {length} at {_shown(unit_row)}: another unit"
        for row in itertools.chain.from_iterable(wrong):
            self.distrusted[row.place] = why
        self.rows = [row for row in self.rows if row.place not in self.distrusted]

    def walk(self) -> None:
        """Go from frame to frame, and stop where the clock was reset or stepped."""
        if not self.rows:
            return
        good, k, run = [self.rows[0]], 1, 0
        while k < len(self.rows):
            row = self.rows[k]
            missing = self._missing(good[-1], row)
            if missing is not None:
                if self._is_far(k - 1) and self._is_far(k):
                    self._lost(k, "unit", good)
                    return
                run = 0
                self._gap(row, missing)
            elif (found := self._rejoins(good, k)) is not None:
                retracted, k = found
                self._set_aside(good, retracted, k)
                row, run = self.rows[k], 0
                self._gap(row, self._missing(good[-1], row) or 0)
            elif row.start > good[-1].start and (run or self._run_from(k) >= MIN_RUN):
                run += 1
                self.irregular += 1
                self._gap(row, self._skipped(good[-1], row))
            else:
                self._lost(k, "reset" if row.start <= good[-1].start else "step", good)
                return
            good.append(row)
            k += 1

    def _missing(self, last: Stamped, row: Stamped, *, plain: bool = False) -> int | None:
        """Frames that are missing between the two, if the one lies where it may after the other.

        Args:
            plain: allow for one period's jitter however many lie between.
        """
        interval, places = row.start - last.start, row.place - last.place
        if interval <= 0:
            return None
        if self.scale is None:
            return 0
        period = self.scale.period
        if abs(interval - places * period) <= self.limit_of(places):
            return 0
        periods = max(places, round(interval / period))
        slack = self.limit_of(periods) + (0 if plain else 3 * self.scale.jitter * _root(periods))
        return periods - places if abs(interval - periods * period) <= slack else None

    def _rejoins(self, good: Sequence[Stamped], k: int) -> tuple[int, int] | None:
        """(how many of the last good frames, the next frame) so that without those between all is well again."""
        if not self.is_steady:
            return None  # nothing tells which of them is wrong
        for removed in range(1, MAX_STRAYS + MAX_RETRACTED + 1):
            for retracted in range(min(removed, MAX_RETRACTED, len(good) - 1) + 1):
                after = k + removed - retracted
                if removed - retracted > MAX_STRAYS or after >= len(self.rows):
                    continue
                if self._missing(good[-1 - retracted], self.rows[after], plain=True) is None:
                    continue
                later = self.rows[after + 1 : after + 2]
                if later and self._missing(self.rows[after], later[0], plain=True) is None:
                    continue
                return retracted, after
        return None

    def _run_from(self, k: int) -> int:
        """How many intervals in a row, from the one before frame k, are no whole number of periods."""
        run = 0
        for last, row in itertools.pairwise(self.rows[k - 1 : k + MIN_RUN]):
            if row.start <= last.start or self._missing(last, row) is not None:
                break
            run += 1
        return run

    def _is_far(self, k: int) -> bool:
        """Whether so much time passes after frame k that stamps may be in another unit from there on."""
        if self.scale is None or k + 1 >= len(self.rows):
            return False
        return self.rows[k + 1].start - self.rows[k].start >= UNIT_FACTOR * self.scale.period

    def _skipped(self, last: Stamped, row: Stamped) -> int:
        assert self.scale is not None
        return max(0, round((row.start - last.start) / self.scale.period) - (row.place - last.place))

    def _gap(self, row: Stamped, missing: int) -> None:
        if missing > 0:
            self.gaps.append((row.place, missing))

    def _set_aside(self, good: list[Stamped], retracted: int, k: int) -> None:
        """Distrust the last `retracted` good frames and those up to frame k, which fits what was before them."""
        previous, k = good[-1 - retracted], k - 1
        strays: list[Stamped] = []
        while self.rows[k].place > previous.place:
            strays.append(self.rows[k])
            k -= 1
        del good[len(good) - retracted :]
        while self.gaps and self.gaps[-1][0] > previous.place:
            self.gaps.pop()
        strays.reverse()
        for row in strays:
            same = any(row.start == other.start for other in (previous, *strays) if other.place != row.place)
            self._fault("duplicate" if same else "out of order", row, row.start - previous.start)
            self.distrusted[row.place] = (
                f"exposure starts at {row.start}, out of line with the frames around it (frame {previous.name} at"
                f" {previous.start}): rows out of order, or a wrong stamp"
            )

    def _lost(self, k: int, kind: Kind, good: Sequence[Stamped]) -> None:
        """Distrust frame k and all after it; and those before it that may be what is wrong."""
        row, last = self.rows[k], good[-1]
        places = row.place - last.place
        expected = last.start + round(self.scale.period * places) if self.scale else last.start
        self._fault(kind, row, row.start - expected)
        why = {
            "reset": f"not after frame {last.name} at {last.start}: rows out of order, or the clock was reset",
            "step": f"{row.start - expected:+d} from where it should be after frame {last.name} at {last.start}:"
            " the clock was stepped",
        }.get(kind, f"far after frame {last.name} at {last.start}, like all that follow: another unit")
        self.distrusted[row.place] = f"exposure starts at {row.start}, {why}"
        for other in self.rows[k + 1 :]:
            self.distrusted[other.place] = f"from {_shown(row)} on {_AFTER[kind]}"
        for other in self._doubtful(good):
            self.distrusted[other.place] = (
                f"before {_shown(row)}, where {_AFTER[kind]}: it may be the wrong one"
            )

    def _doubtful(self, good: Sequence[Stamped]) -> Sequence[Stamped]:
        """The good frames before a fault that do not show by what came before them that they are right."""
        if self.scale is None or len(good) < FEWEST_BEFORE:
            return good
        after_gap = {place for place, _ in self.gaps}
        near = good[-MAX_RETRACTED:]
        if not self.is_steady:
            return near
        first = next((k for k, row in enumerate(near) if row.place in after_gap), len(near))
        return near[first:]

    def _fault(self, kind: Kind, row: Stamped, size: int) -> None:
        self.faults.append(Fault(kind=kind, name=row.name, line=row.line, size=size))

    def _segments(self) -> list[list[Stamped]]:
        """Runs of rows in which no exposure is so much longer or shorter than the one before."""
        segments = [[self.rows[0]]]
        for last, row in itertools.pairwise(self.rows):
            if _ratio(row.stop - row.start, last.stop - last.start) >= UNIT_FACTOR:
                segments.append([])
            segments[-1].append(row)
        return segments

    def _length(self, segment: Sequence[Stamped]) -> int:
        return segment[0].stop - segment[0].start


_AFTER: dict[str, str] = {
    "reset": "the clock is not to be trusted: it was reset, or rows are out of order",
    "step": "the clock is not to be trusted: it was stepped",
    "unit": "the stamps are in another unit",
}


def _shown(row: Stamped) -> str:
    return f"frame {row.name}" + (f" (line {row.line})" if row.line else "")


def _ratio(a: int, b: int) -> int:
    return max(a, b) // max(1, min(a, b))


def _root(number: int) -> int:
    """The square root, rounded up."""
    root = math.isqrt(number)
    return root + (root * root < number)
