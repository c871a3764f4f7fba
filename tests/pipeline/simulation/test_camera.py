"""The integrate-and-fire camera against its theory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.simulation.camera import Sensor, SpikeCamera


def steady(light: float, frames: int, side: int = 8) -> np.ndarray:
    return np.full((frames, side, side), light)


def fire_slowly(light: np.ndarray, start: float, threshold: float, reset: str) -> list[int]:
    """One pixel, by hand."""
    integral, spikes = start, []
    for value in light:
        integral += value
        spikes.append(int(integral >= threshold))
        if spikes[-1]:
            integral = integral - threshold if reset == "subtract" else 0.0
    return spikes


@pytest.mark.parametrize("threshold", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("light", [0.0, 0.1, 0.37, 0.5, 1.0])
def test_steady_light_fires_at_light_over_threshold(light, threshold):
    spikes = SpikeCamera(threshold=threshold).expose(steady(light, 400), np.random.default_rng(0))
    counts = spikes.sum(axis=0)
    # floor((start + 400 light) / threshold), start in [0, threshold): one of the two whole numbers around the rate
    assert np.all(np.abs(counts - 400 * light / threshold) < 1 + 1e-9)


def test_random_start_makes_the_mean_count_unbiased():
    spikes = SpikeCamera().expose(steady(0.33, 10, side=100), np.random.default_rng(1))
    # 10 * 0.33 / 2 = 1.65 spikes on average over starts; standard error 0.48 / 100
    assert spikes.sum(axis=0).mean() == pytest.approx(1.65, abs=0.02)


@pytest.mark.parametrize(("light", "interval"), [(1.0, 2), (0.75, 3), (0.5, 4), (0.3, 7)])
def test_reset_to_zero_loses_the_rest(light, interval):
    spikes = SpikeCamera(reset="zero").expose(steady(light, 200), np.random.default_rng(0))
    fired = np.flatnonzero(spikes[:, 0, 0])
    assert set(np.diff(fired)) == {interval}


@given(seed=st.integers(0, 1000), reset=st.sampled_from(["subtract", "zero"]))
def test_every_pixel_is_a_slow_integrator(seed, reset):
    light = np.random.default_rng(seed).uniform(0, 1, (30, 2, 3))
    starts = np.random.default_rng(seed + 1).uniform(0, 2.0, (2, 3))
    spikes = SpikeCamera(reset=reset).expose(light, np.random.default_rng(seed + 1))
    for row, column in np.ndindex(2, 3):
        expected = fire_slowly(light[:, row, column], starts[row, column], 2.0, reset)
        assert spikes[:, row, column].tolist() == expected


def test_batches_continue_where_the_last_one_ended():
    light = np.random.default_rng(3).uniform(0, 1, (20, 4, 4))
    camera = SpikeCamera(shot_noise=0.1, dark_noise=0.02, gain_spread=0.1)
    whole = Sensor(camera, (4, 4), np.random.default_rng(4)).integrate(light)
    sensor = Sensor(camera, (4, 4), np.random.default_rng(4))
    parts = [sensor.integrate(light[a:b]) for a, b in ((0, 1), (1, 8), (8, 20))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_noise_leaves_the_mean_rate_alone():
    camera = SpikeCamera(shot_noise=0.3, dark_noise=0.1)
    spikes = camera.expose(steady(0.5, 400, side=32), np.random.default_rng(0))
    assert spikes.mean() == pytest.approx(0.25, abs=0.001)
    quiet = SpikeCamera().expose(steady(0.5, 400, side=32), np.random.default_rng(0))
    assert spikes.sum(axis=0).std() > quiet.sum(axis=0).std() + 1


def test_shot_noise_grows_with_the_root_of_the_light():
    camera = SpikeCamera(threshold=1.0, shot_noise=0.2)
    # The count is the integral, floored and with a uniform start: variance n * 0.2**2 * light, plus at most 1/4
    for light in (0.25, 0.81):
        counts = camera.expose(steady(light, 1000, side=40), np.random.default_rng(5)).sum(axis=0)
        assert counts.var() == pytest.approx(1000 * 0.04 * light, rel=0.15)


def test_dark_current_fires_in_the_dark():
    spikes = SpikeCamera(dark_current=0.02).expose(steady(0.0, 500, side=16), np.random.default_rng(0))
    assert spikes.mean() == pytest.approx(0.01, abs=0.001)


def test_fixed_pattern_belongs_to_the_sensor_not_to_the_take():
    camera = SpikeCamera(gain_spread=0.2)
    takes = [camera.expose(steady(0.8, 400), np.random.default_rng(seed)) for seed in (1, 2)]
    counts = [spikes.sum(axis=0, dtype=np.int64) for spikes in takes]
    assert np.all(np.abs(counts[0] - counts[1]) <= 1)
    assert np.allclose(counts[0], 400 * 0.4 * camera.gains(8, 8), atol=1)
    assert not np.array_equal(camera.gains(8, 8), SpikeCamera(gain_spread=0.2, pattern_seed=1).gains(8, 8))


def test_pixels_do_not_fire_in_step():
    spikes = SpikeCamera().expose(steady(1.0, 40, side=64), np.random.default_rng(0))
    assert np.all(np.abs(spikes.mean(axis=(1, 2)) - 0.5) < 0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.9},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"reset": "none"},
        {"shot_noise": -0.1},
        {"dark_noise": 1.0},
        {"dark_current": float("nan")},
        {"gain_spread": -1.0},
        {"pattern_seed": -1},
    ],
)
def test_refuses_impossible_cameras(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpikeCamera(**wrong)


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_refuses_light_that_is_none(value):
    with pytest.raises(ValueError, match="finite and not negative"):
        SpikeCamera().expose(steady(value, 2), np.random.default_rng(0))


def test_refuses_light_of_another_size():
    sensor = Sensor(SpikeCamera(), (4, 4), np.random.default_rng(0))
    with pytest.raises(ValueError, match="does not fit"):
        sensor.integrate(np.zeros((1, 4, 5)))


def test_refuses_no_light_at_all():
    with pytest.raises(ValueError, match="nothing to expose"):
        SpikeCamera().expose([], np.random.default_rng(0))
