import random
from fractions import Fraction

import numpy as np
import pytest

from pipeline.logs.clock import fit_clock
from pipeline.logs.rows import SyncRow

RATE = Fraction(20000)
PERIOD = 50_000


def sync(stamps, indices=None):
    indices = range(0, 1000 * len(stamps), 1000) if indices is None else indices
    return [
        SyncRow(spike_index=int(i), sequence=None, stamp_ns=int(stamp), line=2 + k)
        for k, (i, stamp) in enumerate(zip(indices, stamps, strict=True))
    ]


def ideal(count, offset=10**15, ppm=0, step=1000):
    return [offset + round(k * step * PERIOD * (1 + Fraction(ppm, 10**6))) for k in range(count)]


def test_a_line_without_noise_is_recovered_exactly():
    fit = fit_clock(sync(ideal(11, ppm=200)), RATE, 1)
    assert fit.problem is None and (fit.rms_ns, fit.max_ns) == (0, 0)
    assert fit.period_ns == Fraction(50_010) and fit.zero_ns == 10**15
    assert fit.spike_frame(10**15 + 50_010 * 123) == 123
    assert fit.to_json()["drift_ppm"] == 200


def test_it_is_the_least_squares_line():
    rng = random.Random(1)
    stamps = [stamp + round(rng.gauss(0, 5000)) for stamp in ideal(30, offset=7 * 10**9, ppm=-80)]
    fit = fit_clock(sync(stamps), RATE, 1)
    slope, start = np.polyfit(np.arange(30) * 1000.0, np.array(stamps) - 7e9, 1)
    assert float(fit.period_ns) == pytest.approx(slope, abs=1e-6)
    assert float(fit.zero_ns - 7 * 10**9) == pytest.approx(start, abs=1e-2)
    residuals = np.array(stamps) - 7e9 - slope * np.arange(30) * 1000 - start
    assert fit.rms_ns == pytest.approx(np.sqrt((residuals**2).mean()), abs=1)
    assert fit.max_ns == pytest.approx(np.abs(residuals).max(), abs=1)
    assert fit.problem is None


def test_one_sync_row_gives_the_offset_alone():
    fit = fit_clock(sync([123_456], [10]), RATE, 1)
    assert fit.period_ns == PERIOD and fit.spike_frame(123_456) == 10
    assert fit.drift == 0 and fit.is_known_at(Fraction(10**9))


@pytest.mark.parametrize(("lost", "at"), [(1, 5), (3, 1), (-2, 8)])
def test_a_step_is_named_with_its_row_and_size(lost, at):
    stamps = ideal(12, ppm=30)
    stamps[at:] = [stamp + lost * PERIOD for stamp in stamps[at:]]
    fit = fit_clock(sync(stamps), RATE, 1)
    assert f"line {2 + at}: a step of {lost * PERIOD} ns ({lost:+.2f} spike frames)" in fit.problem


def test_jitter_over_half_a_spike_frame_is_refused_with_its_size():
    rng = random.Random(2)
    stamps = [stamp + round(rng.gauss(0, 60_000)) for stamp in ideal(60)]
    assert "off a straight line, at most 0.5" in fit_clock(sync(stamps), RATE, 1).problem
    calm = [stamp + round(rng.gauss(0, 10_000)) for stamp in ideal(60)]
    assert fit_clock(sync(calm), RATE, 1).problem is None


def test_another_rate_a_reset_and_two_stamps_for_one_spike_frame_are_refused():
    assert "expected 10000.000" in fit_clock(sync(ideal(5)), RATE / 2, 1).problem
    assert "the clock was reset" in fit_clock(sync([10, 10**9, 10**8]), RATE, 1).problem
    assert "two different stamps" in fit_clock(sync([0, 7, 10**9], [0, 0, 20_000]), RATE, 1).problem
    assert fit_clock(sync([0, 0, 10**9], [0, 0, 20_000]), RATE, 1).problem is None  # the same row twice


def test_far_from_its_sync_rows_the_clock_is_not_known():
    rng = random.Random(3)
    stamps = [stamp + round(rng.gauss(0, 10_000)) for stamp in ideal(10)]
    fit = fit_clock(sync(stamps), RATE, 1)
    assert fit.is_known_at(Fraction(5000)) and fit.is_known_at(Fraction(-2000))
    assert not fit.is_known_at(Fraction(200_000))
