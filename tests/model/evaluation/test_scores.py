"""Means over frames and over sequences, and what identical frames do to them."""

import json
import math
from dataclasses import replace

import pytest

from model.evaluation.protocols import PROTOCOLS
from model.evaluation.scores import FrameScore, finite_mean, mean_score

RGB8 = PROTOCOLS["rgb8-all"]


def score(sequence: str, psnr: float, ssim: float = 0.5, method: str = "restored") -> FrameScore:
    return FrameScore(sequence, "000001", 0, method, RGB8.name, {"psnr": psnr, "ssim": ssim})


def test_frame_mean_and_sequence_mean_differ_when_lengths_do():
    scores = [score("a", 30, 0.9), score("a", 32, 0.9), score("a", 34, 0.9), score("b", 20, 0.5)]
    mean = mean_score("restored", RGB8, scores)
    assert (mean.over_frames["psnr"], mean.over_sequences["psnr"]) == (29.0, 26.0)  # 116 / 4, (32 + 20) / 2
    assert (mean.over_frames["ssim"], mean.over_sequences["ssim"]) == (pytest.approx(0.8), pytest.approx(0.7))
    assert (mean.frames, mean.sequences, mean.identical) == (4, 2, 0)


def test_only_the_named_method_is_averaged():
    scores = [score("a", 30), score("a", 10, method="blurry")]
    assert mean_score("blurry", RGB8, scores).psnr == 10


def test_identical_frames_are_counted_and_left_out_of_the_mean():
    mean = mean_score(
        "restored", RGB8, [score("a", math.inf, 1.0), score("a", 30, 0.8), score("b", math.inf, 1.0)]
    )
    assert (mean.psnr, mean.over_sequences["psnr"], mean.identical, mean.frames) == (30, 30, 2, 3)
    assert mean.ssim == pytest.approx(2.8 / 3)


def test_a_perfect_method_is_infinite_and_null_in_json():
    mean = mean_score("restored", RGB8, [score("a", math.inf, 1.0)] * 2)
    assert mean.psnr == mean.over_sequences["psnr"] == math.inf
    plain = mean.to_json()
    assert (plain["psnr"], plain["ssim"], plain["identical"], plain["frames"]) == (None, 1.0, 2, 2)
    json.dumps(plain, allow_nan=False)


def test_no_frames_is_no_number():
    mean = mean_score("restored", RGB8, [])
    assert math.isnan(mean.psnr) and mean.frames == 0
    assert mean.to_json()["psnr"] is None
    assert math.isnan(finite_mean([]))


def test_the_number_of_a_protocol_is_the_mean_it_names():
    scores = [score("a", 30), score("a", 34), score("b", 20)]
    by_sequences = mean_score("restored", replace(RGB8, averaging="sequences"), scores)
    assert (by_sequences.psnr, mean_score("restored", RGB8, scores).psnr) == (26, 28)
    plain = by_sequences.to_json()
    assert (plain["psnr"], plain["frame_psnr"], plain["sequence_psnr"]) == (26, 28, 26)


def test_scores_by_another_protocol_are_left_out():
    assert (
        mean_score("restored", RGB8, [score("a", 30), replace(score("a", 10), protocol="other")]).psnr == 30
    )


def test_values_that_are_not_defined_are_left_out_of_the_means_of_their_metric():
    assert finite_mean([math.nan, 3.0, 5.0]) == 4
    assert finite_mean([math.nan, math.inf]) == math.inf
    assert math.isnan(finite_mean([math.nan, math.nan]))
    change = PROTOCOLS["rgb8-change"]
    values = {"a": [math.nan, 20.0, 30.0], "b": [math.nan]}
    scores = [
        FrameScore(name, "0", i, "restored", change.name, {"psnr": 40.0, "ssim": 1.0, "psnr_change": value})
        for name, of_frames in values.items()
        for i, value in enumerate(of_frames)
    ]
    mean = mean_score("restored", change, scores)
    assert (mean.frames, mean.psnr) == (4, 40)
    assert mean.over_frames["psnr_change"] == mean.over_sequences["psnr_change"] == 25
