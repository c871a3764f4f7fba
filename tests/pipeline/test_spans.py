import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import AlignmentError
from pipeline.spans import frame_at, nanoseconds, span_of


def plain_span(start_ns: int, stop_ns: int, rate_hz: Fraction) -> tuple[int, int]:
    """Frame by frame: i is exposed when (i + 1/2) / rate lies in [start, stop)."""
    inside = [i for i in range(90) if start_ns <= (i + Fraction(1, 2)) / rate_hz * 1_000_000_000 < stop_ns]
    return inside[0], inside[-1] + 1


def test_a_frame_belongs_when_its_middle_does():
    # 1000 Hz: frame i is [i, i + 1) ms, its middle i + 0.5 ms.
    assert span_of(2_400_000, 5_400_000, Fraction(1000), 1)[:2] == (2, 5)
    assert span_of(2_600_000, 5_600_000, Fraction(1000), 1)[:2] == (3, 6)


def test_a_span_is_closed_at_its_start_and_open_at_its_stop():
    assert span_of(2_500_000, 5_500_000, Fraction(1000), 1)[:2] == (2, 5)


def test_residual_is_the_farther_edge():
    assert span_of(2_400_000, 5_100_000, Fraction(1000), 1)[2] == 400_000
    assert span_of(2_000_000, 5_000_000, Fraction(1000), 1)[2] == 0


@given(
    st.integers(0, 20 * 10**6),
    st.integers(2 * 10**6, 20 * 10**6),
    st.sampled_from([Fraction(1000), Fraction(1920), Fraction(4000, 3)]),
)
def test_agrees_with_the_frame_by_frame_rule(start_ns, length_ns, rate_hz):
    half_frame_ns = 500_000_000 / rate_hz
    for stamp in (start_ns, start_ns + length_ns):
        halves = stamp / half_frame_ns
        assume(
            abs(halves - round(halves)) * half_frame_ns > 1
        )  # farther than the resolution: nothing to snap
    assert span_of(start_ns, start_ns + length_ns, rate_hz, 1)[:2] == plain_span(
        start_ns, start_ns + length_ns, rate_hz
    )


@pytest.mark.parametrize("rate_hz", [Fraction(1920), Fraction(4000), Fraction(20000), Fraction(24000, 1001)])
@pytest.mark.parametrize("shift", [Fraction(0), Fraction(1, 2)])
def test_six_decimals_move_no_frame(rate_hz, shift):
    """Spans that begin on frames, or on their middles, survive rounding and truncation to a microsecond."""
    for start in range(436):
        stop = start + 88
        for cut in (round, math.floor):
            stamps = [cut((i + shift) / rate_hz * 1_000_000) * 1000 for i in (start, stop)]
            assert span_of(*stamps, rate_hz, 1000)[:2] == (start, stop)


def test_refuses_a_log_too_coarse_for_the_rate():
    with pytest.raises(AlignmentError, match="1000000 ns cannot tell spike frames of 250000 ns apart"):
        span_of(1_100_000, 9_000_000, Fraction(4000), 1_000_000)
    # A stamp exactly at the beginning of a frame is no accident of rounding.
    assert span_of(15_000_000, 47_000_000, Fraction(1000), 1_000_000)[:2] == (15, 47)


@pytest.mark.parametrize(
    ("instant_ns", "resolution_ns", "frame"),
    [
        (0, 1, 0),
        (999_999, 1, 1),
        (999_998, 1, 0),
        (1_000_000, 1, 1),
        (1_999_000, 1000, 2),
        (1_998_999, 1000, 1),
    ],
)
def test_an_instant_is_in_the_spike_frame_that_holds_it_but_for_rounding(instant_ns, resolution_ns, frame):
    assert frame_at(instant_ns, Fraction(1000), resolution_ns) == frame


def test_the_middle_of_every_spike_frame_is_in_it_however_its_nanoseconds_are_rounded():
    for rate in (1920, Fraction(50_000, 3), 40_000):
        for index in range(500):
            assert frame_at(nanoseconds(index + Fraction(1, 2), Fraction(rate)), Fraction(rate)) == index


def test_frames_to_nanoseconds():
    assert nanoseconds(0, Fraction(1920)) == 0
    assert nanoseconds(1, Fraction(1920)) == 520_833  # 520833.33
    assert nanoseconds(2, Fraction(1920)) == 1_041_667  # 1041666.67
    assert nanoseconds(-3, Fraction(1000)) == -3_000_000
