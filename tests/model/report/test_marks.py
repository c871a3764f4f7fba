"""Names, numbers, groups and colours in the report."""

import math

import pytest

from model.report.marks import (
    colour_of,
    counted,
    gain_over,
    grouped,
    main_methods,
    metric,
    signed,
    swatch,
    title,
    toned,
)


def test_known_methods_have_a_title_and_others_their_name():
    assert [title(name) for name in ("restored", "rgb_only", "mine")] == ["Restored", "RGB only", "mine"]


@pytest.mark.parametrize(
    ("name", "heading", "value", "text"),
    [
        ("psnr", "PSNR (dB)", 31.256, "31.26"),
        ("ssim", "SSIM", 0.98765, "0.9877"),
        ("psnr_y", "PSNR Y (dB)", -1.0, "−1.00"),
        ("reblur_psnr", "reblur PSNR (dB)", math.inf, "∞"),
        ("spike_error", "spike error", 0.000123456, "0.0001235"),
        ("ssim", "SSIM", math.nan, "–"),
    ],
)
def test_metrics_are_written_by_their_family(name, heading, value, text):
    assert metric(name).heading == heading
    assert metric(name).text(value) == text


def test_the_best_is_by_the_direction_of_the_metric():
    assert metric("psnr").best([30.0, 32.0, math.nan]) == 32
    assert metric("lpips").best([0.3, 0.2]) == 0.2
    assert math.isnan(metric("unknown").best([1.0])) and math.isnan(metric("psnr").best([math.nan]))


@pytest.mark.parametrize(
    ("value", "reference", "gain", "text", "tone"),
    [
        (33.25, 30.0, 3.25, "+3.25", "gain"),
        (30.0, 33.25, -3.25, "−3.25", "loss"),
        (30.0, 30.0, 0.0, "+0.00", ""),
        (math.inf, 30.0, None, "–", ""),
        (30.0, math.inf, None, "–", ""),
        (math.inf, math.inf, None, "–", ""),
        (math.nan, 30.0, None, "–", ""),
    ],
)
def test_a_gain_has_its_sign_and_is_none_without_two_numbers(value, reference, gain, text, tone):
    assert gain_over(value, reference) == gain
    assert (signed(gain), toned(gain)) == (text, tone)


def test_methods_are_grouped_by_what_they_saw(results_of):
    names = ("restored", "spikes=zero", "threshold 2=", "rgb_only", "spike_only", "blurry")
    results = results_of({"s": {name: [30.0] for name in names}})
    assert grouped(results) == {
        "Network under test": ["restored"],
        "Other networks": ["rgb_only"],
        "Altered input": ["spikes=zero"],
        "Other spike thresholds": ["threshold 2="],
        "Baselines": ["spike_only", "blurry"],
    }
    assert main_methods(results) == ("restored", "rgb_only", "spike_only", "blurry")


def test_fixed_methods_keep_their_colour_and_others_share_three(results_of):
    names = ("restored", "a", "b", "c", "d", "spike_only", "blurry")
    results = results_of({"s": {name: [30.0] for name in names}})
    assert [colour_of(results, name) for name in names] == [f"var(--m{i})" for i in (0, 3, 4, 5, 3, 1, 2)]
    assert 'style="background:var(--m4)"' in swatch(results, "b")


def test_one_is_not_many():
    assert (counted(1, "frame"), counted(1200, "frame")) == ("1 frame", "1,200 frames")
