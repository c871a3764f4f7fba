from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.respike import DrawnSensor, SpikeAugmentation, raise_threshold
from pipeline.simulation.camera import SpikeCamera
from pipeline.voxels import bin_spikes, frames_per_bin

SAME = DrawnSensor(
    threshold=1, lost_share=0.0, dark_rate=0.0, gain_spread=0.0, dead_share=0.0, hot_share=0.0, seed=1
)
ALL = SpikeAugmentation(
    thresholds=(1, 2, 4), lost_share=0.1, dark_rate=0.01, gain_spread=0.05, dead_share=0.1, hot_share=0.1
)


class Charges:
    """In place of a generator: the charges that the pixels of a camera start with."""

    def __init__(self, charge):
        self.charge = charge

    def uniform(self, low, high, shape):
        return self.charge.copy()


def counted(counts, **changes):
    """The counts (T, K, H, W) of another sensor, all bins having 10 frames."""
    out = counts.copy()
    replace(SAME, **changes).count_again(out, np.full(counts.shape[:2], 10))
    return out


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_counts_are_those_of_a_camera_with_that_threshold_that_films_the_same(factor):
    rng = np.random.default_rng(factor)
    light = rng.integers(0, 65, (60, 6, 7)) / 64  # up to white, whose sums have no rounding
    light[10:25] = 0
    charge = rng.integers(0, 64 * factor, (6, 7)) / 64
    own, other = (
        bin_spikes(SpikeCamera(threshold=theta, reset="subtract").expose(light, Charges(start)), 8)
        for theta, start in ((1.0, charge % 1), (float(factor), charge))
    )
    assert own.max() > 5 and other.max() > 0 and (own == 0).any()
    total = np.cumsum(own, axis=0, dtype=int) + np.floor(charge).astype(int)
    np.testing.assert_array_equal(np.diff(total // factor, axis=0, prepend=0), other)

    # All pixels of one light: those that start with the phase of a simulated camera count what it counted.
    pixel = np.ascontiguousarray(np.broadcast_to(own[:, 2:3, 3:4], (8, 40, 40))[None])
    replace(SAME, threshold=factor).count_again(pixel, frames_per_bin(60, 8)[None])
    seen = {tuple(series) for series in pixel[0].reshape(8, -1).T.tolist()}
    expected = set()
    for phase in range(factor):
        start = charge % 1 + phase
        camera = SpikeCamera(threshold=float(factor), reset="subtract")
        expected.add(tuple(bin_spikes(camera.expose(light, Charges(start)), 8)[:, 2, 3].tolist()))
    assert seen == expected


def test_every_phase_is_as_likely_and_new_for_each_frame():
    counts = np.zeros((2, 3, 100, 100), np.uint8)
    counts[:, 0] = 1
    fired = counted(counts, threshold=4)[:, 0].astype(float)
    assert fired.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(np.corrcoef(fired[0].ravel(), fired[1].ravel())[0, 1]) < 0.05


def test_time_may_run_either_way():
    rng = np.random.default_rng(0)
    counts = np.ascontiguousarray(
        np.broadcast_to(rng.integers(0, 4, (1, 6, 1, 1)), (1, 6, 200, 200)).astype(np.uint8)
    )
    forward, backward = (
        {
            tuple(series): number
            for series, number in zip(
                *np.unique(turned[0].reshape(6, -1).T, axis=0, return_counts=True), strict=True
            )
        }
        for turned in (
            counted(counts, threshold=3),
            counted(np.ascontiguousarray(counts[:, ::-1]), threshold=3)[:, ::-1],
        )
    )
    assert forward.keys() == backward.keys() and len(forward) == 3
    assert all(abs(forward[series] - backward[series]) < 600 for series in forward)  # of 13333


def test_gains_and_stuck_pixels_are_those_of_the_sensor_through_the_clip():
    counts = np.full((3, 4, 60, 60), 8, np.uint8)
    uneven = counted(counts, gain_spread=0.3).astype(float).sum(axis=1)
    assert np.corrcoef(uneven[0].ravel(), uneven[2].ravel())[0, 1] > 0.95
    assert uneven.mean() == pytest.approx(4 * 8, rel=0.05)
    stuck = counted(counts, dead_share=0.1, hot_share=0.2)
    dead, hot = (stuck == 0).all(axis=(0, 1)), (stuck == 10).all(axis=(0, 1))
    assert dead.mean() == pytest.approx(0.1, abs=0.02) and hot.mean() == pytest.approx(0.2, abs=0.03)
    assert (stuck[:, :, ~dead & ~hot] == 8).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_no_count_exceeds_the_frames_of_its_bin_or_wraps_around(kind):
    most = np.iinfo(kind).max
    frames = np.array([[most, 0, 3]])
    counts = np.broadcast_to(frames[:, :, None, None], (1, 3, 8, 8)).astype(kind)
    loud = replace(SAME, gain_spread=0.9, dark_rate=0.9, hot_share=0.1)
    loud.count_again(counts, frames)
    assert (counts <= frames[:, :, None, None]).all() and counts[0, 0].max() == most
    quiet = np.zeros((1, 3, 8, 8), kind)
    replace(loud, lost_share=0.5).count_again(quiet, frames)
    assert (quiet <= frames[:, :, None, None]).all()


def test_a_sensor_repeats_itself_and_another_one_differs():
    counts = np.random.default_rng(0).integers(0, 11, (2, 4, 30, 30)).astype(np.uint8)
    sensor = ALL.draw(np.random.default_rng((0, 2, 7)))
    assert sensor == ALL.draw(np.random.default_rng((0, 2, 7)))
    first, again, other = counts.copy(), counts.copy(), counts.copy()
    frames = np.full((2, 4), 10)
    sensor.count_again(first, frames)
    sensor.count_again(again, frames)
    replace(sensor, seed=sensor.seed + 1).count_again(other, frames)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != counts).any()


def test_draws_all_thresholds_and_shares_up_to_what_is_given():
    drawn = [ALL.draw(np.random.default_rng((0, 2, number))) for number in range(300)]
    assert {sensor.threshold for sensor in drawn} == {1, 2, 4}
    for name in ("lost_share", "dark_rate", "gain_spread", "dead_share", "hot_share"):
        most, values = getattr(ALL, name), [getattr(sensor, name) for sensor in drawn]
        assert 0 <= min(values) < 0.1 * most and 0.9 * most < max(values) < most
    one = replace(ALL, dark_rate=0.0).draw(np.random.default_rng((0, 2, 1)))
    assert one == replace(drawn[1], dark_rate=0.0)


def test_is_off_unless_something_is_asked_for():
    assert SpikeAugmentation().is_off and SpikeAugmentation(thresholds=(1, 1)).is_off and not ALL.is_off
    counts = np.random.default_rng(0).integers(0, 11, (2, 4, 9, 9)).astype(np.uint8)
    np.testing.assert_array_equal(counted(counts), counts)


@pytest.mark.parametrize(
    "values",
    [
        *({"thresholds": value} for value in ([], [0], [256], [1, -2])),
        *({"lost_share": value} for value in (-0.1, 1.0)),
        {"dark_rate": 1.0},
        {"dead_share": 0.6, "hot_share": 0.6},
    ],
)
def test_refuses_settings_that_mean_nothing(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(SpikeAugmentation, values, "here")


def test_refuses_a_threshold_that_is_not_whole():
    with pytest.raises(ConfigError, match=r"thresholds\[1\]: expected int, got 1.5"):
        build(SpikeAugmentation, {"thresholds": [1, 1.5]}, "here")


def test_refuses_what_does_not_fit():
    counts = np.zeros((2, 3, 4, 4), np.uint8)
    for frames in (np.ones((2, 4), int), np.full((2, 3), 256)):
        with pytest.raises(ValueError, match="fit"):
            SAME.count_again(counts, frames)
    with pytest.raises(ValueError, match="fit"):
        SAME.count_again(counts[..., ::-1], np.ones((2, 3), int))


def test_every_third_spike_from_the_charge_that_was_there():
    # Cumulative counts 2, 3, 7, 8 and phase 1: floor(3/3), floor(4/3), floor(8/3), floor(9/3) = 1, 1, 2, 3.
    counts = np.array([2, 1, 4, 1], np.uint8).reshape(1, 4, 1, 1)
    raise_threshold(counts, np.array([[[1]]], np.int32), 3)
    assert counts.ravel().tolist() == [1, 0, 1, 1]


def test_refuses_a_threshold_or_phases_that_do_not_fit():
    counts = np.zeros((2, 3, 4, 4), np.uint8)
    for phase, threshold in ((np.zeros((2, 4, 5), np.int32), 2), (np.zeros((2, 4, 4), np.int32), 0)):
        with pytest.raises(ValueError, match=r"fit|threshold 0"):
            raise_threshold(counts, phase, threshold)
