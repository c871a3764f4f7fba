"""The integrate-and-fire camera against its theory."""

from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, FormatError
from pipeline.simulation.camera import Sensor, SpikeCamera
from pipeline.simulation.fixed_pattern import draw_gains, draw_stuck, read_sensor_maps


def steady(light: float, frames: int, side: int = 8) -> np.ndarray:
    return np.full((frames, side, side), light)


def fire_slowly(light: np.ndarray, start: float, threshold: float, reset: str) -> list[int]:
    """One pixel, by hand."""
    integral, spikes = start, []
    for value in light:
        integral += value
        spikes.append(int(integral >= threshold))
        if spikes[-1]:
            integral = integral % threshold if reset == "subtract" else 0.0
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


@pytest.mark.parametrize("threshold", [1.0, 1.25, 2.0, 3.0, 7.5])
@pytest.mark.parametrize("light", [Fraction(n, 64) for n in (1, 12, 32, 43, 64)])
@pytest.mark.parametrize("frames", [1, 7, 64])
def test_the_count_is_the_floor_of_what_was_collected(threshold, light, frames):
    """floor((A0 + T I) / threshold), exactly: light in 64ths and starts of few bits add up without rounding."""
    sensor = Sensor(SpikeCamera(threshold=threshold), (16, 16), np.random.default_rng(7))
    starts = np.floor(sensor._integral * 2**20) / 2**20
    sensor._integral = starts.copy()
    counts = sensor.integrate(steady(float(light), frames, side=16)).sum(axis=0)
    expected = [floor((Fraction(a0) + frames * light) / Fraction(threshold)) for a0 in starts.ravel()]
    assert counts.ravel().tolist() == expected
    # so that the rate is light / threshold with an error below one spike in the recording
    assert np.abs(counts / frames - float(light) / threshold).max() < 1 / frames


@pytest.mark.parametrize(("light", "interval"), [(1.0, 2), (0.75, 3), (0.5, 4), (0.3, 7)])
def test_reset_to_zero_loses_the_rest(light, interval):
    spikes = SpikeCamera(reset="zero").expose(steady(light, 200), np.random.default_rng(0))
    fired = np.flatnonzero(spikes[:, 0, 0])
    assert set(np.diff(fired)) == {interval}


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("light", [0.0625, 0.25, 0.375, 0.6875, 1.0])
def test_reset_to_zero_has_the_rate_of_whole_intervals(threshold, light):
    interval = ceil(threshold / light)
    spikes = SpikeCamera(threshold=threshold, reset="zero").expose(
        steady(light, 4 * interval), np.random.default_rng(2)
    )
    assert (spikes[interval:].sum(axis=0) == 3).all()  # in the steady state, after the first spike


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize(("threshold", "light"), [(2.0, 1.0), (2.0, 0.9), (1.0, 0.5), (4.0, 1.0), (4.0, 2.0)])
def test_no_two_spikes_in_a_row_at_half_the_threshold_and_below(threshold, light, reset):
    camera = SpikeCamera(threshold=threshold, reset=reset)
    spikes = camera.expose(steady(light, 100, side=32), np.random.default_rng(1))
    assert spikes.any() and not (spikes[1:] & spikes[:-1]).any()


def test_spikes_in_a_row_above_half_the_threshold():
    spikes = SpikeCamera(threshold=1.0).expose(steady(0.75, 400, side=8), np.random.default_rng(1))
    # intervals of 1 and 2 frames, 4/3 on average: two in three spikes are followed by another at once
    assert (spikes[1:] & spikes[:-1]).sum() / spikes[:-1].sum() == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize(("threshold", "light"), [(0.5, 0.5), (0.5, 0.6), (0.3, 1.0), (1.0, 2.5)])
def test_a_saturated_pixel_fires_in_every_frame(threshold, light):
    spikes = SpikeCamera(threshold=threshold).expose(steady(light, 50), np.random.default_rng(0))
    assert spikes.all()


def test_saturation_leaves_no_afterglow():
    """Charge beyond a spike per frame is lost: 100 frames of it are dark again after at most one more spike."""
    light = np.concatenate([steady(2.5, 100), steady(0.0, 100)])
    spikes = SpikeCamera(threshold=1.0).expose(light, np.random.default_rng(0))
    assert spikes[:100].all() and not spikes[100:].any()


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_a_low_threshold_keeps_the_law_up_to_saturation(threshold):
    light = np.tile(np.linspace(0, 1, 33), (400, 4, 1))
    rate = SpikeCamera(threshold=threshold).expose(light, np.random.default_rng(3)).mean(axis=0)
    assert np.abs(rate - np.minimum(light[0] / threshold, 1)).max() <= 1 / 400 + 1e-9


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


@pytest.mark.parametrize(
    ("threshold", "light"), [(1.0, 0.05), (1.0, 0.4), (2.0, 0.4), (3.0, 0.05), (3.0, 0.9)]
)
def test_shot_noise_leaves_the_mean_count_unbiased_and_spreads_it(threshold, light):
    camera = SpikeCamera(threshold=threshold, shot_noise=0.2)
    counts = camera.expose(steady(light, 600, side=48), np.random.default_rng(8)).sum(axis=0)
    # The count is floor((A0 + charge) / threshold). A0, uniform, adds what the floor loses, so the mean is that of
    # the charge; to the charge's variance, 600 * 0.2**2 * light, the two add at most 1/4.
    charge_variance = 600 * 0.04 * light / threshold**2
    deviation = np.sqrt(charge_variance + 0.25)
    assert counts.mean() == pytest.approx(600 * light / threshold, abs=4 * deviation / 48)
    assert charge_variance * 0.9 < counts.var() < (charge_variance + 0.25) * 1.1


def test_dark_current_fires_in_the_dark():
    spikes = SpikeCamera(dark_current=0.02).expose(steady(0.0, 500, side=16), np.random.default_rng(0))
    assert spikes.mean() == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("light", [0.0, 0.3, 0.8])
def test_dark_current_shifts_every_rate_by_as_much(light):
    spikes = SpikeCamera(threshold=2.0, dark_current=0.125).expose(
        steady(light, 800), np.random.default_rng(0)
    )
    assert np.abs(spikes.mean(axis=0) - (light + 0.125) / 2).max() <= 1 / 800 + 1e-9


def test_dead_pixels_never_fire_and_hot_ones_always_do():
    camera = SpikeCamera(dead_share=0.1, hot_share=0.05, shot_noise=0.1, pattern_seed=4)
    dead, hot = draw_stuck(20, 30, 0.1, 0.05, seed=4)
    assert (dead.sum(), hot.sum()) == (60, 30)
    dark, white = (
        camera.expose(np.full((200, 20, 30), light), np.random.default_rng(0)) for light in (0.0, 1.0)
    )
    for spikes in (dark, white):
        assert not spikes[:, dead].any() and spikes[:, hot].all()
    assert not dark[:, ~hot].any() and white[:, ~dead].any(axis=0).all()


def test_measured_maps_act_on_the_light(tmp_path: Path):
    rng = np.random.default_rng(0)
    gain, dark = rng.uniform(0.5, 1.0, (8, 8)), rng.uniform(0, 0.1, (8, 8))
    np.savez(tmp_path / "maps.npz", gain=gain, dark_current=dark)
    camera = SpikeCamera(maps=tmp_path / "maps.npz", threshold=3.0)
    spikes = camera.expose(steady(0.6, 900), np.random.default_rng(0))
    assert np.abs(spikes.mean(axis=0) - (gain * 0.6 + dark) / 3).max() <= 1 / 900 + 1e-9


@pytest.mark.parametrize("light", [0.0, 0.1, 0.5, 1.0])
def test_the_calibration_of_a_real_camera_gives_its_rates(light, shared_data: Path):
    """In the published words: x = I / 4, D = 1 / x - 1, D' = D / (Nl + D Nd / (D_light (335 + Nd))), 1 / (D' + 1)."""
    path = shared_data / "sensor_calibration" / "spikenerf_fpn_250x400.npz"
    maps = {key: values.astype(float) for key, values in np.load(path).items()}
    spikes = SpikeCamera(threshold=4.0, maps=path).expose(
        np.full((500, 250, 400), light, np.float32), np.random.default_rng(0)
    )
    dark = maps["Nd"] / (maps["D_light"] * (335 + maps["Nd"]))
    if light == 0:
        expected = 1 / (1 / dark + 1)  # D grows without bounds: D' = 1 / dark
    else:
        interval = 1 / (light / 4) - 1
        expected = 1 / (interval / (maps["Nl"] + interval * dark) + 1)
    assert np.abs(spikes.mean(axis=0) - expected).max() <= 1 / 500 + 1e-6


def test_the_calibration_of_a_real_camera_can_be_inverted(shared_data: Path):
    """The rates that the maps give, taken back through them, are the light: D = Nl D' / (1 - D' dark)."""
    path = shared_data / "sensor_calibration" / "spikenerf_fpn_250x400.npz"
    maps, light = read_sensor_maps(path), np.random.default_rng(1).uniform(0, 1, (250, 400))
    interval = 1 / (maps.charge(light) / 4) - 1
    back = maps.gain * interval / (1 - interval * maps.dark)
    assert np.allclose(4 / (1 + back), light, atol=1e-9)


def test_cameras_that_differ_in_threshold_alone_see_the_same_noise():
    """Over one recording: each one's charge, spikes x threshold, is the same within a spike at either end."""
    light = np.random.default_rng(0).uniform(0, 1, (300, 16, 16))
    charge = [
        SpikeCamera(threshold=threshold, shot_noise=0.3).expose(light, np.random.default_rng(9)).sum(axis=0)
        * threshold
        for threshold in (2.0, 3.0, 5.0)
    ]
    assert np.abs(charge[0] - charge[1]).max() <= 5 and np.abs(charge[0] - charge[2]).max() <= 7
    other = (
        SpikeCamera(threshold=2.0, shot_noise=0.3).expose(light, np.random.default_rng(10)).sum(axis=0) * 2.0
    )
    assert (
        np.abs(charge[0] - other).max() > 7
    )  # other noise: 300 draws of 0.3 * sqrt(0.5), deviation 3.7 * sqrt(2)


def test_a_camera_with_maps_is_told_apart_by_their_digest(tmp_path: Path):
    np.save(tmp_path / "maps.npy", np.ones((4, 4)))
    camera = SpikeCamera(maps=tmp_path / "maps.npy").identified()
    assert len(camera.maps_sha256 or "") == 64 and camera.identified() == camera
    assert SpikeCamera().identified() == SpikeCamera()
    np.save(tmp_path / "maps.npy", np.full((4, 4), 0.5))
    with pytest.raises(ConfigError, match=r"maps\.npy: its SHA-256 is"):
        camera.identified()
    with pytest.raises(FormatError, match=r"maps\.npy: its SHA-256 is"):
        Sensor(camera, (4, 4), np.random.default_rng(0))
    with pytest.raises(FormatError, match=r"none\.npz: no such file"):
        SpikeCamera(maps=tmp_path / "none.npz").identified()


def test_fixed_pattern_belongs_to_the_sensor_not_to_the_take():
    camera = SpikeCamera(gain_spread=0.2)
    takes = [camera.expose(steady(0.8, 400), np.random.default_rng(seed)) for seed in (1, 2)]
    counts = [spikes.sum(axis=0, dtype=np.int64) for spikes in takes]
    assert np.all(np.abs(counts[0] - counts[1]) <= 1)
    assert np.allclose(counts[0], 400 * 0.4 * draw_gains(8, 8, 0.2, seed=0), atol=1)
    assert not np.array_equal(draw_gains(8, 8, 0.2, seed=0), draw_gains(8, 8, 0.2, seed=1))


def test_pixels_do_not_fire_in_step():
    spikes = SpikeCamera().expose(steady(1.0, 40, side=64), np.random.default_rng(0))
    assert np.all(np.abs(spikes.mean(axis=(1, 2)) - 0.5) < 0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"reset": "none"},
        {"shot_noise": -0.1},
        {"dark_noise": 1.0},
        {"dark_current": float("nan")},
        {"gain_spread": -1.0},
        {"pattern_seed": -1},
        {"dead_share": -0.1},
        {"hot_share": 1.5},
        {"dead_share": 0.6, "hot_share": 0.6},
        {"maps_sha256": "00"},
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
