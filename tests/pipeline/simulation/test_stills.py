"""Stills filmed by a moving camera."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.simulation.stills import BORDER, AnimatedStill, CameraPath, animate, free_room
from pipeline.simulation.textures import random_texture


def photo(side: int = 256) -> np.ndarray:
    return np.round(random_texture(np.random.default_rng(0), side, shapes=60) * 255).astype(np.uint8)


def animated(seed: int = 0, **changes) -> AnimatedStill:
    arguments = {"shape": (32, 40), "reduce": 2, "speed": (6.0, 12.0), "name": "photo.png"} | changes
    return animate(photo(), rng=np.random.default_rng(seed), **arguments)


def test_a_camera_at_rest_sees_the_reduced_picture():
    picture = np.random.default_rng(1).random((3, 40, 48)).astype(np.float32)
    path = CameraPath(
        amplitude=np.array([0, 0, 0, 0.025]), frequency=np.zeros(4), phase=np.array([0, 0, 0, np.pi / 2])
    )
    still = AnimatedStill(picture=picture, reduce=2, height=5, width=7, path=path)
    # the view's middle is the picture's, between texels; pixels are 2 texels apart
    centre = (picture[:, 19, 23] + picture[:, 19, 24] + picture[:, 20, 23] + picture[:, 20, 24]) / 4
    assert np.allclose(still.render(np.zeros(1))[0, :, 2, 3], centre, atol=1e-5)
    right = (picture[:, 19, 25] + picture[:, 19, 26] + picture[:, 20, 25] + picture[:, 20, 26]) / 4
    assert np.allclose(still.render(np.zeros(1))[0, :, 2, 4], right, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_speed_is_within_the_declared_range(seed):
    x, y, _, _ = animated(seed).path.at(np.linspace(0, 2000, 200_001))
    speed = np.hypot(np.diff(x), np.diff(y)) / 0.01
    assert 5.5 < np.sqrt(np.mean(speed**2)) < 12.5


@pytest.mark.parametrize("seed", range(5))
def test_the_view_never_leaves_the_picture(seed):
    still = animated(seed)
    poisoned = still.picture.copy()
    poisoned[:, [0, -1]] = poisoned[:, :, [0, -1]] = np.nan
    edge = AnimatedStill(picture=poisoned, reduce=2, height=32, width=40, path=still.path)
    assert np.isfinite(edge.render(np.linspace(0, 40, 400))).all()


def test_sub_frame_motion_is_smooth():
    still = animated()
    renders = still.render(np.linspace(0, 1, 65))
    steps = np.abs(np.diff(renders, axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 0.03 and steps.min() > steps.max() / 20
    assert renders.min() >= 0 and renders.max() <= 1


def test_free_room_leaves_the_border_alone():
    across, down = free_room((100, 200), (10, 20), 1)
    assert across == pytest.approx((200 - 20 * np.cos(0.04) - 10 * np.sin(0.04)) / 2 - BORDER)
    assert down == pytest.approx((100 - 10 * np.cos(0.04) - 20 * np.sin(0.04)) / 2 - BORDER)


def test_refuses_a_picture_without_room_to_move():
    with pytest.raises(UsageError, match=r"photo\.png: 256x256 pixels leave a view of 120x120"):
        animated(shape=(120, 120))
