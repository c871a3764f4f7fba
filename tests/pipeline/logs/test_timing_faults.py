import random

import pytest

from pipeline.logs.timing import Stamped
from pipeline.logs.timing_faults import examine_timing

MS = 1_000_000
PERIOD = 40 * MS
FRAME = 50_000
"""A spike frame at 20 kHz."""


def rows(starts, lengths=None, places=None):
    lengths = lengths or [10 * MS] * len(starts)
    places = places or range(len(starts))
    zipped = zip(places, starts, lengths, strict=True)
    return [Stamped(place=p, name=str(p), line=p + 2, start=s, stop=s + n) for p, s, n in zipped]


def steady(count, jitter=0, seed=0):
    rng = random.Random(seed)
    return [1000 * MS + k * PERIOD + round(rng.gauss(0, jitter)) for k in range(count)]


def examine(starts, lengths=None, places=None):
    return examine_timing(rows(starts, lengths, places), least=FRAME)


def kinds(timing):
    return [(fault.kind, fault.name) for fault in timing.faults]


def test_a_steady_camera_has_its_rate_its_jitter_and_no_faults():
    timing = examine(steady(200, jitter=100_000))
    assert timing.verdict == "regular" and not timing.faults and not timing.gaps and not timing.distrusted
    assert timing.period == pytest.approx(PERIOD, rel=0.001)
    assert timing.jitter == pytest.approx(141_000, rel=0.25)  # of intervals: sqrt(2) of that of the stamps
    assert timing.exposure == (10 * MS, 10 * MS, 10 * MS)


def test_one_exposure_and_two_say_what_they_can():
    assert (examine([5]).period, examine([5]).verdict) == (None, "too few to tell")
    two = examine([5, 5 + PERIOD])
    assert (two.period, two.verdict, two.detects, two.faults) == (PERIOD, "too few to tell", None, ())


def stamped_to(resolution, period, count):
    """The verdict about a perfectly regular camera whose log is all there is."""
    starts = [round(k * period / resolution) * resolution for k in range(count)]
    return examine_timing(rows(starts, [period // 2] * count), resolution=resolution).verdict


@pytest.mark.parametrize("period", [500_000, 1 * MS, 2_083_333, 2_500_000, PERIOD])
@pytest.mark.parametrize("count", [4, 5, 8, 9, 40])
def test_rounding_to_microseconds_makes_no_camera_irregular(period, count):
    assert stamped_to(1000, period, count) == "regular"


@pytest.mark.parametrize(
    ("period", "count", "verdict"),
    [
        (PERIOD, 5, "regular"),
        (16_666_667, 12, "too few to tell"),  # intervals of 16 and 17 ms, which could be jitter
        (16_666_667, 40, "regular"),
        (4_166_667, 5, "too coarse to tell"),
        (4_166_667, 40, "too coarse to tell"),
    ],
)
def test_stamps_that_are_too_coarse_for_their_number_are_not_called_irregular(period, count, verdict):
    assert stamped_to(MS, period, count) == verdict


def test_a_few_coarse_stamps_cannot_tell_of_spike_frames():
    few = examine_timing(rows(steady(5)), least=FRAME, resolution=MS)
    assert few.verdict == "too few to tell" and not few.faults
    assert examine_timing(rows(steady(20)), least=FRAME, resolution=MS).verdict == "regular"


def test_a_few_frames_with_some_jitter_are_too_few_and_with_much_irregular():
    assert examine([0, 40_000_000, 80_100_000, 120_050_000, 160_200_000]).verdict == "too few to tell"
    assert examine([0, 40 * MS, 95 * MS, 125 * MS, 169 * MS]).verdict == "irregular"


def test_with_few_frames_a_clock_that_runs_backwards_puts_all_in_doubt():
    timing = examine([100 * MS, 50 * MS, 140 * MS])
    assert kinds(timing) == [("reset", "1")] and set(timing.distrusted) == {0, 1, 2}


def test_a_gap_is_counted_exactly_and_nothing_is_distrusted():
    starts = steady(20)
    del starts[12], starts[5:8]
    timing = examine(starts)
    assert timing.gaps == ((5, 3), (9, 1)) and not timing.distrusted


def test_a_frame_that_is_known_but_has_no_row_is_no_gap():
    starts = steady(20)
    timing = examine([*starts[:5], *starts[6:]], places=[*range(5), *range(6, 20)])
    assert timing.gaps == () and not timing.faults


def test_after_a_reset_nothing_is_trusted():
    starts = steady(20)
    timing = examine(starts[:12] + [start - starts[12] + 7 * MS for start in starts[12:]])
    assert kinds(timing) == [("reset", "12")]
    assert set(timing.distrusted) == set(range(12, 20))
    assert "not after frame 11" in timing.distrusted[12] and "it was reset" in timing.distrusted[15]


@pytest.mark.parametrize("size", [-35 * MS, -100_000, 100_000, 13 * MS, 90 * MS])
def test_after_a_step_nothing_is_trusted(size):
    starts = steady(20)
    timing = examine(starts[:12] + [start + size for start in starts[12:]])
    assert kinds(timing) == [("step", "12")] and timing.faults[0].size == size
    assert set(timing.distrusted) == set(range(12, 20))
    assert f"{size:+d} from where it should be" in timing.distrusted[12]


def test_what_is_smaller_than_detects_goes_unnoticed_and_what_is_larger_does_not():
    starts = steady(60, jitter=20_000)
    detects = examine(starts).detects
    assert detects < 20 * 30_000
    for size, found in ((detects // 20, False), (detects + 200_000, True)):
        assert bool(examine(starts[:30] + [start + size for start in starts[30:]]).faults) == found


def test_a_step_by_whole_periods_looks_like_frames_that_are_missing():
    starts = steady(20)
    timing = examine(starts[:12] + [start + 3 * PERIOD for start in starts[12:]])
    assert timing.gaps == ((12, 3),) and not timing.faults


def test_a_stray_stamp_is_alone_in_its_fault():
    starts = steady(20)
    starts[7] += 11 * MS
    timing = examine(starts)
    assert kinds(timing) == [("out of order", "7")] and set(timing.distrusted) == {7}


def test_exchanged_stamps_are_both_distrusted():
    starts = steady(20)
    starts[7], starts[8] = starts[8], starts[7]
    assert set(examine(starts).distrusted) == {7, 8}


def test_the_last_two_exchanged_are_distrusted_with_the_gap_that_one_of_them_seems_to_follow():
    starts = steady(20)
    starts[18], starts[19] = starts[19], starts[18]
    assert set(examine(starts).distrusted) == {18, 19}


def test_a_stamp_that_is_stuck_is_a_duplicate():
    starts = steady(20)
    starts[7] = starts[6]
    timing = examine(starts)
    assert kinds(timing) == [("duplicate", "7")] and set(timing.distrusted) == {7}


def test_a_fault_among_the_first_frames_leaves_none():
    for size in (-510 * MS, 510 * MS):
        timing = examine([start + size * (k < 2) for k, start in enumerate(steady(20))])
        assert set(timing.distrusted) == set(range(20))
        assert "it may be the wrong one" in timing.distrusted[0]


def test_rows_in_another_unit_are_distrusted_from_there_on():
    lengths = [10 * MS] * 12 + [10_000] * 8
    starts = steady(20)
    starts[12:] = [start // 1000 for start in starts[12:]]
    timing = examine(starts, lengths)
    assert ("unit", "12") in kinds(timing) and set(timing.distrusted) == set(range(12, 20))
    assert "another unit" in timing.distrusted[12]


def test_a_few_rows_in_another_unit_are_distrusted_alone():
    lengths = [10 * MS] * 40
    lengths[7] *= 1000
    timing = examine(steady(40), lengths)
    assert kinds(timing) == [("unit", "7")] and set(timing.distrusted) == {7}


def test_when_most_rows_are_in_the_second_unit_none_is_trusted():
    timing = examine(steady(40), [10_000] * 5 + [10 * MS] * 35)
    assert set(timing.distrusted) == set(range(40))


def test_stamps_in_another_unit_are_found_although_exposures_are_not():
    starts = steady(20)
    starts[12:] = [start * 1000 for start in starts[12:]]
    assert set(examine(starts).distrusted) == set(range(12, 20))


def test_automatic_exposure_is_no_change_of_unit():
    lengths = [round(0.2 * MS * 1.2 ** min(k, 40 - k)) for k in range(41)]
    assert max(lengths) > 30 * min(lengths)
    assert examine(steady(41), lengths).faults == ()


def test_overlaps_are_counted_and_used():
    timing = examine(steady(20), [50 * MS] * 20)
    assert timing.overlaps == 19 and not timing.distrusted


@pytest.mark.parametrize("seed", range(5))
def test_a_variable_frame_rate_is_irregular_and_no_fault(seed):
    rng = random.Random(seed)
    starts = [1000 * MS]
    for _ in range(100):
        starts.append(starts[-1] + round(rng.uniform(0.6, 1.4) * PERIOD))
    timing = examine(starts)
    assert timing.verdict == "irregular" and not timing.faults and not timing.gaps


def test_a_camera_that_starts_slowly_changes_its_rate():
    starts = [0, 61 * MS, 113 * MS, 163 * MS]
    starts += [starts[-1] + PERIOD * k for k in range(1, 60)]
    timing = examine(starts)
    assert not timing.faults and timing.irregular == 3


def test_times_in_spike_frames_work_the_same_way():
    starts = [88 * k for k in range(20)]
    exposures = [Stamped(place=k, name=str(k), start=s, stop=s + 88) for k, s in enumerate(starts)]
    assert examine_timing(exposures, least=1, resolution=1).period == 88
