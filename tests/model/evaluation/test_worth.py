"""What other spikes change, worked out by hand, and what is said about it."""

import math

import pytest

from model.evaluation.protocols import PROTOCOLS
from model.evaluation.scores import FrameScore
from model.evaluation.worth import differences, ignores_spikes, worth_in_words

RGB8 = PROTOCOLS["rgb8-all"]


def scores(**by_method: list[float | None]) -> list[FrameScore]:
    return [
        FrameScore(
            "s", f"{i}", i, method.replace("zero", "spikes=zero"), RGB8.name, {"psnr": value, "ssim": 0.5}
        )
        for method, values in by_method.items()
        for i, value in enumerate(values)
        if value is not None
    ]


def test_differences_are_of_the_frames_that_both_have():
    found = differences(
        RGB8, ["spikes=zero", "shift"], scores(restored=[30, 32, 34], zero=[28, 33, 30], shift=[None, 31, 32])
    )
    assert found["spikes=zero"].values == {"psnr": pytest.approx(-5 / 3), "ssim": 0}
    assert (found["spikes=zero"].frames, found["spikes=zero"].largest) == (3, 4)
    assert (found["shift"].values["psnr"], found["shift"].frames) == (-1.5, 2)
    assert found["shift"].to_json() == {"frames": 2, "psnr": -1.5, "ssim": 0.0}


@pytest.mark.parametrize(
    ("zero", "ignored", "words"),
    [
        ([27, 29], False, "The spikes are worth 3.00 dB of mean PSNR: so much is lost with spikes=zero."),
        ([30.5, 32.5], False, "The spikes do harm: with spikes=zero the network gains 0.50 dB of mean PSNR."),
        (
            [30.04, 31.96],
            True,
            "The network ignores its spikes: with spikes=zero no frame's PSNR changes by 0.05 dB.",
        ),
        ([31, 31], False, "The spikes are worth 0.00 dB of mean PSNR: so much is lost with spikes=zero."),
        ([math.inf, math.inf], False, ""),
    ],
)
def test_what_is_said(zero, ignored, words):
    found = differences(RGB8, ["spikes=zero"], scores(restored=[30, 32], zero=zero))
    assert ignores_spikes(found) is ignored
    assert worth_in_words(RGB8, found) == words


def test_frames_that_are_perfect_either_way_do_not_differ():
    found = differences(RGB8, ["spikes=zero"], scores(restored=[math.inf, 30], zero=[math.inf, 30]))
    assert found["spikes=zero"].values["psnr"] == 0 and ignores_spikes(found)


def test_spikes_that_are_almost_right_do_not_tell_whether_they_are_ignored():
    found = differences(
        RGB8, ["spikes=shift:+1"], [*scores(restored=[30.0]), *scores(**{"spikes=shift:+1": [30.0]})]
    )
    assert ignores_spikes(found) is None and worth_in_words(RGB8, found) == ""
    nothing = differences(RGB8, ["spikes=zero"], [])
    assert ignores_spikes(nothing) is None and math.isnan(nothing["spikes=zero"].values["psnr"])
