"""Two cameras, one scene: what each of them records, against a slow plain version."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.simulation.camera import SpikeCamera
from pipeline.simulation.rig import RigConfig, area_mean, film, to_8_bit

QUIET = SpikeCamera()


class Ramp:
    """Light that grows with time at the left, is steady at the right, and has a colour."""

    height, width = 4, 8

    def __init__(self) -> None:
        self.asked: list[float] = []

    def render(self, time):
        self.asked += list(time)
        light = np.full((len(time), 3, 4, 8), 0.4, np.float32)
        light[:, :, :, :4] = np.asarray(time)[:, None, None, None] / 4
        light[:, 2] /= 2
        return light


def test_exposures_and_gaps_take_turns():
    rig = RigConfig(num_frames=3, exposure_frames=10, gap_frames=4, rate_hz=Fraction(1920))
    assert rig.spans.tolist() == [[4, 14], [18, 28], [32, 42]]
    assert rig.spike_frames == 46


def test_every_spike_frame_is_rendered_once_at_its_middle_and_sharp_at_the_middle_of_the_exposure(
    monkeypatch,
):
    monkeypatch.setattr("pipeline.simulation.rig.BATCH_PIXELS", 3 * 32)  # batches that end inside exposures
    rig = RigConfig(num_frames=2, exposure_frames=4, gap_frames=1, camera=QUIET)
    ramp = Ramp()
    film(ramp, rig, np.random.default_rng(0))
    assert ramp.asked[:11] == [(frame + 0.5) / 4 for frame in range(11)]
    assert ramp.asked[11:] == [3 / 4, 8 / 4]


@pytest.mark.parametrize("batch", [1, 5 * 32, 1 << 17])
def test_blurry_is_the_mean_of_the_renders_of_its_exposure_alone(monkeypatch, batch):
    monkeypatch.setattr("pipeline.simulation.rig.BATCH_PIXELS", batch)
    rig = RigConfig(num_frames=2, exposure_frames=4, gap_frames=1, camera=QUIET)
    recorded = film(Ramp(), rig, np.random.default_rng(0))
    # frames 1..4 of 4 to an exposure: middles 1.5, 2.5, 3.5, 4.5 quarters, mean 3 quarters; a quarter of it is light
    assert recorded.blurry[0, 0, 0, 0] == round(255 * 0.75 / 4)
    assert recorded.blurry[1, 0, 0, 0] == round(255 * 2 / 4)
    assert recorded.blurry[0, 2, 0, 7] == round(255 * 0.2)
    assert recorded.sharp[1, 0, 0, 0] == round(255 * 2 / 4)
    assert recorded.blurry.shape == recorded.sharp.shape == (2, 3, 4, 8)


def test_spikes_see_the_mean_of_the_colours_over_their_area():
    rig = RigConfig(num_frames=20, exposure_frames=19, gap_frames=1, scale=2, camera=QUIET)
    recorded = film(Ramp(), rig, np.random.default_rng(0))
    assert recorded.spikes.shape == (401, 2, 4)
    # (0.4 + 0.4 + 0.2) / 3 of light over a threshold of 2, counted over 401 frames
    assert np.all(np.abs(recorded.spikes[:, :, 3].sum(axis=0) - 401 / 6) <= 1)


def test_area_mean_averages_blocks():
    image = np.arange(16.0).reshape(1, 4, 4)
    assert area_mean(image, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert area_mean(image, 1) is image


def test_light_is_rounded_not_cut():
    assert to_8_bit(np.array([0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.0001])).tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"exposure_frames": 0}, "exposure_frames"),
        ({"gap_frames": 0}, "gap_frames"),
        ({"scale": 0}, "scale"),
        ({"rate_hz": Fraction(0)}, "rate_hz"),
    ],
)
def test_refuses_impossible_timing(wrong, message):
    with pytest.raises(ValueError, match=message):
        RigConfig(**wrong)


def test_refuses_pictures_the_spike_camera_cannot_divide():
    with pytest.raises(ValueError, match="scale 2"):
        RigConfig(scale=2).spike_size(31, 32)
    with pytest.raises(ValueError, match="whole bytes"):
        RigConfig().spike_size(3, 5)
    assert RigConfig(scale=2).spike_size(32, 48) == (16, 24)


def test_sharp_frames_are_the_renders_of_spike_frames_all_over_the_range_and_nothing_else_changes():
    settings = {
        "num_frames": 200,
        "exposure_frames": 8,
        "gap_frames": 3,
        "camera": SpikeCamera(shot_noise=0.1),
    }
    middle = film(Ramp(), RigConfig(**settings), np.random.default_rng(0))
    rig = RigConfig(**settings, sharp_at=(0.25, 1.0))
    ramp = Ramp()
    drawn = film(ramp, rig, np.random.default_rng(0))
    assert middle.sharp_frames is None
    assert set(drawn.sharp_frames - rig.spans[:, 0]) == {2, 3, 4, 5, 6, 7}
    assert ramp.asked[-200:] == ((drawn.sharp_frames + 0.5) / 8).tolist()
    np.testing.assert_array_equal(middle.blurry, drawn.blurry)
    np.testing.assert_array_equal(middle.spikes, drawn.spikes)
    again = film(Ramp(), replace(rig, camera=QUIET), np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.sharp_frames, again.sharp_frames)  # whatever the spike camera draws


@pytest.mark.parametrize(("at", "frame"), [(0.0, 0), (0.1, 0), (0.5, 4), (0.99, 7), (1.0, 7)])
def test_an_instant_is_in_the_spike_frame_that_holds_it(at, frame):
    rig = RigConfig(num_frames=2, exposure_frames=8, gap_frames=3, sharp_at=(at, at))
    assert rig.sharp_frames(np.random.default_rng(0)).tolist() == [3 + frame, 14 + frame]


@pytest.mark.parametrize("sharp_at", [(-0.1, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 1.0)])
def test_refuses_instants_outside_the_exposure(sharp_at):
    with pytest.raises(ValueError, match="sharp_at"):
        RigConfig(sharp_at=sharp_at)
