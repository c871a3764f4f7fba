"""Maps of a sensor: every form there and back, fitted to other sizes, refused when they are none."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import FormatError
from pipeline.simulation import fixed_pattern
from pipeline.simulation.fixed_pattern import (
    SensorMaps,
    digest_of_maps,
    draw_gains,
    draw_stuck,
    read_sensor_maps,
)

GAIN = np.array([[1.0, 0.5], [0.25, 2.0], [0.0, 1.5]])
DARK = np.array([[0.0, 0.5], [0.25, 0.0], [0.0, 0.125]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gain_and_dark_current_come_from_either_kind_of_file(dtype, tmp_path: Path):
    np.savez(tmp_path / "both.npz", gain=GAIN.astype(dtype), dark_current=DARK.astype(dtype))
    np.save(tmp_path / "both.npy", np.stack([GAIN, DARK]).astype(dtype))
    for name in ("both.npz", "both.npy"):
        maps = read_sensor_maps(tmp_path / name)
        assert np.array_equal(maps.gain, GAIN) and np.array_equal(maps.dark, DARK) and maps.white is None
        assert np.array_equal(maps.charge(np.full((3, 2), 0.5)), GAIN * 0.5 + DARK)


def test_one_map_alone_leaves_the_other_neutral(tmp_path: Path):
    np.savez(tmp_path / "gain.npz", gain=GAIN)
    np.savez(tmp_path / "dark.npz", dark_current=DARK)
    np.save(tmp_path / "gain.npy", GAIN)
    for name in ("gain.npz", "gain.npy"):
        assert np.array_equal(read_sensor_maps(tmp_path / name).charge(np.ones((3, 2))), GAIN)
    assert np.array_equal(read_sensor_maps(tmp_path / "dark.npz").charge(np.ones((3, 2))), 1 + DARK)


def test_interval_maps_by_hand(tmp_path: Path):
    """Nl 0.5, Nd 5, D_light 0.1: dark odds 5 / (0.1 * 340) = 5/34. White: x 1/4, odds 1/3, 1/6 + 5/34 = 16/51,
    rate 16/67, times 4."""
    one = np.ones((1, 1))
    np.savez(tmp_path / "a.npz", Nl=0.5 * one, Nd=5 * one, D_light=0.1 * one)
    maps = read_sensor_maps(tmp_path / "a.npz")
    assert maps.charge(one)[0, 0] == pytest.approx(4 * 16 / 67)
    assert maps.charge(0 * one)[0, 0] == pytest.approx(4 * 5 / 39)


def test_neutral_interval_maps_change_nothing():
    maps = SensorMaps(gain=np.ones((1, 3)), dark=np.zeros((1, 3)), white=4.0)
    light = np.array([[[0.0, 0.25, 1.0]]])
    assert np.allclose(maps.charge(light), light)
    with pytest.raises(ValueError, match="measured below 4"):
        maps.charge(np.full((1, 1, 3), 4.0))


def test_maps_take_their_middle_or_go_on_mirrored():
    ramp = np.arange(5.0)[None].repeat(5, axis=0)
    maps = SensorMaps(gain=ramp, dark=ramp.T)
    smaller, larger = maps.fitted(3, 2), maps.fitted(5, 9)
    assert smaller.gain.tolist() == [[1, 2]] * 3  # two of five columns: one left out before, two after
    assert smaller.dark.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert larger.gain[0].tolist() == [1, 0, 0, 1, 2, 3, 4, 4, 3]
    assert maps.fitted(5, 30).gain.shape == (5, 30)
    assert np.array_equal(maps.fitted(5, 5).gain, ramp)


@pytest.mark.parametrize(
    ("name", "arrays", "problem"),
    [
        ("a.npz", {"other": GAIN}, "no sensor maps: it holds other"),
        ("a.npz", {"gain": GAIN, "dark_current": DARK[:2]}, r"maps of \(3, 2\) and \(2, 2\)"),
        ("a.npz", {"gain": GAIN - 1}, "finite and not negative"),
        ("a.npz", {"gain": np.full((2, 2), np.nan)}, "finite and not negative"),
        ("a.npz", {"gain": np.array([["a"]])}, "values of type"),
        ("a.npz", {"Nl": GAIN, "Nd": GAIN, "D_light": GAIN}, "D_light be above 0"),
        ("a.npz", {"Nl": GAIN, "Nd": GAIN, "D_light": GAIN[:1] + 1}, "one shape"),
        ("a.npy", np.zeros((3, 4, 5)), r"shape \(3, 4, 5\), expected \(H, W\)"),
        ("a.npy", np.zeros((0, 4)), "expected one"),
    ],
)
def test_refuses_what_is_no_sensor(name, arrays, problem, tmp_path: Path):
    np.savez(tmp_path / name, **arrays) if isinstance(arrays, dict) else np.save(tmp_path / name, arrays)
    with pytest.raises(FormatError, match=problem):
        read_sensor_maps(tmp_path / name)


def test_refuses_damaged_missing_and_boundless_files(tmp_path: Path, monkeypatch):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    for name, problem in (
        ("a.npz", "not a readable .npz"),
        ("b.npy", "no such file"),
        ("c.npz", "no such file"),
    ):
        with pytest.raises(FormatError, match=problem):
            read_sensor_maps(tmp_path / name)
    monkeypatch.setattr(fixed_pattern, "MAX_MAP_BYTES", 40)
    np.savez(tmp_path / "a.npz", gain=GAIN)
    np.save(tmp_path / "a.npy", GAIN)
    with pytest.raises(FormatError, match="unpacks to 48 bytes, more than 40"):
        read_sensor_maps(tmp_path / "a.npz")
    with pytest.raises(FormatError, match="shape"):
        read_sensor_maps(tmp_path / "a.npy")


def test_refuses_another_file_than_the_one_meant(tmp_path: Path):
    np.save(tmp_path / "a.npy", GAIN)
    digest = digest_of_maps(tmp_path / "a.npy")
    assert np.array_equal(read_sensor_maps(tmp_path / "a.npy", digest).gain, GAIN)
    with pytest.raises(FormatError, match="not the 0000"):
        read_sensor_maps(tmp_path / "a.npy", "0" * 64)


def test_gains_belong_to_the_sensor():
    assert np.array_equal(draw_gains(4, 5, 0.1, seed=3), draw_gains(4, 5, 0.1, seed=3))
    assert not np.array_equal(draw_gains(4, 5, 0.1, seed=3), draw_gains(4, 5, 0.1, seed=4))
    assert draw_gains(200, 200, 0.9, seed=0).min() == 0
    assert np.std(draw_gains(200, 200, 0.05, seed=0)) == pytest.approx(0.05, rel=0.02)
    assert (draw_gains(3, 3, 0, seed=0) == 1).all()


def test_stuck_pixels_are_counted_and_nested():
    dead, hot = draw_stuck(10, 10, 0.07, 0.04, seed=1)
    more, _ = draw_stuck(10, 10, 0.2, 0.04, seed=1)
    assert (dead.sum(), hot.sum(), (dead & hot).sum()) == (7, 4, 0)
    assert more.sum() == 20 and (more | ~dead).all()
    none, nor_these = draw_stuck(10, 10, 0, 0, seed=1)
    assert not none.any() and not nor_these.any()
    all_dead, all_hot = draw_stuck(3, 3, 0.5, 0.5, seed=1)
    assert (all_dead | all_hot).sum() >= 8 and not (all_dead & all_hot).any()
