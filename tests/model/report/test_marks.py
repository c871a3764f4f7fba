"""Names, numbers and colours in the report."""

import math

import pytest

from model.report.marks import colour_of, decibels, gain_over, signed, swatch, title


def test_known_methods_have_a_title_and_others_their_name():
    assert [title(name) for name in ("restored", "rgb_only", "mine")] == ["Restored", "RGB only", "mine"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (31.256, 2, "31.26"),
        (0.98765, 4, "0.9877"),
        (-1.0, 2, "-1.00"),
        (math.inf, 2, "∞"),
        (math.nan, 4, "–"),
    ],
)
def test_numbers_that_are_none_have_a_sign(value, digits, text):
    assert decibels(value, digits) == text


@pytest.mark.parametrize(
    ("value", "reference", "gain", "text"),
    [
        (33.25, 30.0, 3.25, "+3.25"),
        (30.0, 33.25, -3.25, "−3.25"),
        (30.0, 30.0, 0.0, "+0.00"),
        (math.inf, 30.0, None, "–"),
        (30.0, math.inf, None, "–"),
        (math.inf, math.inf, None, "–"),
        (math.nan, 30.0, None, "–"),
    ],
)
def test_a_gain_has_its_sign_and_is_none_without_two_numbers(value, reference, gain, text):
    assert gain_over(value, reference) == gain
    assert signed(gain) == text


def test_fixed_methods_keep_their_colour_and_others_share_three(results_of):
    names = ("restored", "a", "b", "c", "d", "spike_only", "blurry")
    results = results_of({"s": {name: [30.0] for name in names}})
    assert [colour_of(results, name) for name in names] == [f"var(--m{i})" for i in (0, 3, 4, 5, 3, 1, 2)]
    assert 'style="background:var(--m4)"' in swatch(results, "b")
