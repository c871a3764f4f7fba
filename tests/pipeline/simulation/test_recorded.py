"""High-speed recordings: interpolated where that is honest, refused where it makes ghosts."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.simulation.recorded import RecordedFootage, motion, refuse_fast_motion
from pipeline.simulation.textures import random_texture
from pipeline.simulation.views import View, look


def shifted(x: float, y: float = 0.0, side: int = 96) -> np.ndarray:
    """The same texture, seen `x`, `y` pixels further on, grey (side, side) in 0..255."""
    texture = random_texture(np.random.default_rng(0), 512, shapes=150)
    view = View(*(np.array([value]) for value in (200 + 2 * x, 200 + 2 * y, 0.0, 2.0)))
    return look(texture, view, (side, side))[:, 0].mean(axis=0) * 255


def recording(*positions: float) -> np.ndarray:
    return np.round(np.stack([np.broadcast_to(shifted(x), (3, 96, 96)) for x in positions])).astype(np.uint8)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0.5, 0), (1, 0), (0, -2), (3, 4), (6.5, -2)])
def test_motion_is_measured_to_a_fraction_of_a_pixel(x, y):
    assert motion(shifted(0), shifted(x, y)) == pytest.approx(np.hypot(x, y), abs=0.35)


def test_a_small_fast_object_is_seen_over_a_still_background():
    before, after = shifted(0), shifted(0)
    before[30:78, 30:78] = shifted(50)[30:78, 30:78]
    after[30:78, 30:78] = shifted(54)[30:78, 30:78]
    assert motion(before, after) > 3


def test_flat_pictures_show_no_motion():
    assert motion(np.full((64, 64), 10.0), np.full((64, 64), 30.0)) == 0


def test_pictures_smaller_than_a_block_can_be_measured():
    assert motion(shifted(0, side=24), shifted(0, side=24)) < 0.1


def test_refuses_fast_motion_by_frame():
    frames = recording(0, 0.5, 1.0, 5.0, 5.5)
    with pytest.raises(UsageError, match=r"clip: frame 12 to 13 moves 4.*ghosts") as caught:
        refuse_fast_motion(frames, 1.0, name="clip", first=10)
    assert "reduce" in caught.value.fix and "motion=animate" in caught.value.fix


def test_accepts_slow_motion():
    refuse_fast_motion(recording(0, 0.5, 1.0, 1.5), 1.0, name="clip", first=0)


def test_frames_are_joined_by_straight_lines():
    frames = np.zeros((3, 3, 8, 8), np.uint8)
    frames[1], frames[2] = 100, 250
    footage = RecordedFootage(frames, 4.0)
    light = footage.render(np.array([0.0, 0.125, 0.25, 0.4, 0.5]))[:, 0, 0, 0]
    assert np.allclose(light * 255, [0, 50, 100, 100 + 0.6 * 150, 250], atol=1e-3)
    assert (footage.height, footage.width) == (8, 8)


@pytest.mark.parametrize("time", [-0.01, 0.51])
def test_refuses_times_outside_the_recording(time):
    footage = RecordedFootage(np.zeros((3, 3, 8, 8), np.uint8), 4.0)
    with pytest.raises(ValueError, match="outside"):
        footage.render(np.array([time]))
