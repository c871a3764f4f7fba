"""The clock of a log against the clock of the spikes: offset and drift, fitted to sync rows.

A sync row says at which instant of the log's clock a spike frame began. The stamps are regressed on the spike frames
(ordinary least squares, in whole numbers), so that an exposure's stamps map to spike frames exactly as the fitted
line has them; no float is involved.

What sync rows cannot show: an error that all of them share, such as the same delay of every stamp; with two of them,
whether either is wrong, and with three to five, whether one is by a few spike frames; a drift that comes and goes
between two of them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.logs.rows import SyncRow
from pipeline.spans import SECOND_NS

MAX_DRIFT = Fraction(2, 1000)
"""Clocks differ by parts per ten thousand; more than this is another rate than the manifest's, or a wrong row."""
STEP_SPREADS = 12
"""A jump between two sync rows is a step when it is this many median absolute deviations (8 sigma) large; more where
there are few rows."""
_HALF = Fraction(1, 2)


@dataclass(frozen=True, kw_only=True)
class ClockFit:
    """A fitted clock: on the log's clock, spike frame i begins at `zero_ns + i * period_ns`.

    Attributes:
        zero_ns, period_ns: exact.
        drift: how much longer than the nominal period the fitted one is, relative to it.
        num_sync: sync rows it was fitted to.
        rms_ns, max_ns: of what is left of their stamps when the line is taken away; rounded.
        problem: why exposures must not be mapped through it; None where they may.
        variance_ns2: of one stamp about the line; None for one sync row, which tells nothing of it.
        mean_index, spread: mean of the sync rows' spike frames, and sum of their squared distances from it.
    """

    zero_ns: Fraction
    period_ns: Fraction
    drift: Fraction
    num_sync: int
    rms_ns: int
    max_ns: int
    problem: str | None
    variance_ns2: Fraction | None
    mean_index: Fraction
    spread: Fraction

    def spike_frame(self, stamp_ns: int) -> Fraction:
        """Where an instant of the log's clock lies among the spike frames."""
        return (stamp_ns - self.zero_ns) / self.period_ns

    def is_known_at(self, spike_frame: Fraction) -> bool:
        """Whether the standard error of the line is at most half a spike frame there: the residuals carried as far."""
        if self.variance_ns2 is None:
            return True
        share = Fraction(1, self.num_sync) + (spike_frame - self.mean_index) ** 2 / self.spread
        return self.variance_ns2 * share <= (self.period_ns * _HALF) ** 2

    def to_json(self) -> dict[str, Any]:
        """What the store keeps of it; frames are spike frames."""
        period = float(self.period_ns)
        return {
            "sync_rows": self.num_sync,
            "offset_ns": round(self.zero_ns),
            "rate_hz": round(SECOND_NS / period, 6),
            "drift_ppm": round(float(self.drift) * 1e6, 3),
            "rms_ns": self.rms_ns,
            "max_ns": self.max_ns,
            "rms_frames": round(self.rms_ns / period, 4),
            "max_frames": round(self.max_ns / period, 4),
        }


def fit_clock(sync: Sequence[SyncRow], rate_hz: Fraction, resolution_ns: int) -> ClockFit:
    """Fit the clock to one or more sync rows; to one alone at the nominal rate.

    Args:
        rate_hz: nominal spike frames per second of the log's clock.
        resolution_ns: of the stamps.
    """
    rows = sorted({(row.spike_index, row.stamp_ns): row for row in sync}.values(), key=_by_index)
    nominal = SECOND_NS / rate_hz
    period = nominal
    count, x0, y0 = len(rows), rows[0].stamp_ns, rows[0].spike_index
    xs, ys = [row.stamp_ns - x0 for row in rows], [row.spike_index - y0 for row in rows]
    spread = Fraction(count * sum(y * y for y in ys) - sum(ys) ** 2, count)
    if spread:
        covariance = count * sum(x * y for x, y in zip(xs, ys, strict=True)) - sum(xs) * sum(ys)
        period = Fraction(covariance, count) / spread
    zero = Fraction(sum(xs), count) - period * Fraction(sum(ys), count)
    residuals = [x - zero - period * y for x, y in zip(xs, ys, strict=True)]
    squares = _sum_of_squares(residuals)
    variance = (
        max(squares / max(1, count - 2), Fraction(resolution_ns * resolution_ns, 4)) if spread else None
    )
    drift = period / nominal - 1
    return ClockFit(
        zero_ns=x0 + zero - period * y0,
        period_ns=period,
        drift=drift,
        num_sync=count,
        rms_ns=round(float(squares / count) ** 0.5),
        max_ns=round(max(map(abs, residuals))),
        problem=_problem(rows, residuals, period, nominal, squares / count),
        variance_ns2=variance,
        mean_index=y0 + Fraction(sum(ys), count),
        spread=spread,
    )


def _by_index(row: SyncRow) -> tuple[int, int]:
    return row.spike_index, row.stamp_ns


def _sum_of_squares(values: Sequence[Fraction]) -> Fraction:
    """Exact, with one division: all `values` are multiples of one fraction."""
    common = math.lcm(*(value.denominator for value in values))
    whole = (value.numerator * (common // value.denominator) for value in values)
    return Fraction(sum(number * number for number in whole), common * common)


def _problem(
    rows: Sequence[SyncRow],
    residuals: Sequence[Fraction],
    period: Fraction,
    nominal: Fraction,
    mean_square: Fraction,
) -> str | None:
    """What shows that a straight line is not how the two clocks run."""
    for row, after in itertools.pairwise(rows):
        if after.spike_index == row.spike_index:
            return (
                f"lines {row.line} and {after.line} give spike frame {row.spike_index} two different stamps"
            )
        if after.stamp_ns <= row.stamp_ns:
            return (
                f"line {after.line}: spike frame {after.spike_index} at {after.stamp_ns} ns, not after spike frame"
                f" {row.spike_index} at {row.stamp_ns} ns (line {row.line}): the clock was reset"
            )
    if (step := _step(rows, nominal)) is not None:
        row, size = step
        frames = float(size / nominal)
        what = "the clock was stepped, or spike frames are missing" if size > 0 else "the clock was stepped"
        return f"line {row.line}: a step of {round(size)} ns ({frames:+.2f} spike frames) before this sync row: {what}"
    if abs(period / nominal - 1) > MAX_DRIFT:
        rates = f"{float(SECOND_NS / period):.3f} spike frames a second, expected {float(SECOND_NS / nominal):.3f}"
        return f"the sync rows say {rates}: rate_hz or the unit of the log is wrong, or a sync row is"
    if mean_square > (period * _HALF) ** 2:
        rms = float(mean_square) ** 0.5
        worst = max(range(len(rows)), key=lambda k: abs(residuals[k]))
        return (
            f"sync rows are {rms:.0f} ns rms ({rms / float(period):.2f} spike frames) off a straight line, at most 0.5"
            f" spike frames are allowed; the farthest is line {rows[worst].line}, by {round(residuals[worst])} ns"
        )
    return None


def _step(rows: Sequence[SyncRow], nominal: Fraction) -> tuple[SyncRow, Fraction] | None:
    """The largest jump between neighbouring sync rows that stands out, and the row after it.

    The period is the median of the neighbours' own periods, which one step does not move.
    """
    pairs = list(itertools.pairwise(rows))
    if len(pairs) < 3:
        return None
    between = [(b.stamp_ns - a.stamp_ns, b.spike_index - a.spike_index) for a, b in pairs]
    period = sorted(Fraction(ns, frames) for ns, frames in between)[len(between) // 2]
    jumps = [ns - period * frames for ns, frames in between]
    usual = sorted(map(abs, jumps))[(len(jumps) - 1) // 2]
    few = 1 + Fraction(8, len(pairs) - 2)
    largest = max(range(len(jumps)), key=lambda k: abs(jumps[k]))
    if abs(jumps[largest]) <= max(nominal * _HALF, STEP_SPREADS * few * usual):
        return None
    return pairs[largest][1], jumps[largest]
