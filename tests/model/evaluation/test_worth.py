"""What other spikes change, worked out by hand, and what is said about it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from model.evaluation.judge import Entrant
from model.evaluation.protocols import PROTOCOLS
from model.evaluation.scores import FrameScore
from model.evaluation.worth import ablated, described, differences, estimates, ignores_spikes, worth_in_words
from model.tiling import Tiling
from pipeline.ablations import Shuffle, Threshold, Zero
from pipeline.errors import UsageError

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


def test_the_network_is_given_other_spikes_under_the_name_of_the_change():
    grids = np.ones((3, 4, 8, 8), np.uint8)
    sequences = [SimpleNamespace(name=name, num_frames=3, voxels=lambda name: grids) for name in "ab"]
    entrant = Entrant(restorer=None, voxels="k4", tiling=Tiling())
    changes = (Zero(), Shuffle(), Threshold(2))
    rows = ablated(entrant, changes, sequences)
    assert list(rows) == ["spikes=zero", "spikes=shuffle", "threshold 2"]
    assert (
        not rows["spikes=zero"].changed["a"].grids[:].any() and rows["spikes=zero"].tiling == entrant.tiling
    )
    assert described(rows)["spikes=shuffle"] == {
        "spikes": {"a": "those of b", "b": "those of a"},
        "left_out_frames": 0,
    }
    assert list(estimates(changes, rows)) == ["spike_only threshold 2"]


def test_a_network_without_spikes_has_none_to_change():
    restorer = SimpleNamespace(info=SimpleNamespace(path="rgb.safetensors"))
    entrant = Entrant(restorer=restorer, voxels=None, tiling=Tiling())
    with pytest.raises(UsageError, match="takes no spikes"):
        ablated(entrant, (Zero(),), [])
    assert ablated(entrant, (), []) == {}
