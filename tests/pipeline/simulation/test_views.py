"""Sub-pixel looks at a texture."""

import numpy as np

from pipeline.simulation.views import View, look, sample


def view(x: float, y: float, angle: float = 0.0, step: float = 1.0) -> View:
    return View(*(np.array([value], np.float64) for value in (x, y, angle, step)))


def test_whole_texels_are_read_exactly_and_wrap_around():
    texture = np.random.default_rng(0).random((2, 8, 6), np.float32)  # neither side need be a power of two
    y, x = np.mgrid[-9:9, -7:11].astype(np.float32)
    assert np.array_equal(sample(texture, x, y), texture[:, (y % 8).astype(int), (x % 6).astype(int)])


def test_between_texels_is_bilinear():
    texture = np.array([[[0, 1], [2, 5]]], np.float32)
    # 0.75 * (0.5 * 0 + 0.5 * 1) + 0.25 * (0.5 * 2 + 0.5 * 5) = 1.25
    assert sample(texture, np.float32([0.5]), np.float32([0.25]))[0, 0] == 1.25


def test_the_picture_is_centred_on_the_view_and_steps_over_texels():
    texture = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    picture = look(texture, view(3.0, 4.0, step=2.0), (3, 3))
    assert np.array_equal(picture[0, 0], texture[0, 2:7:2, 1:6:2])


def test_a_quarter_turn_rotates_the_picture():
    texture = np.random.default_rng(1).random((1, 8, 8), np.float32)
    upright = look(texture, view(4.0, 4.0), (3, 3))[0, 0]
    turned = look(texture, view(4.0, 4.0, angle=np.pi / 2), (3, 3))[0, 0]
    # the picture's x axis now runs down the texture
    assert np.allclose(turned, np.rot90(upright), atol=1e-5)


def test_far_away_is_as_exact_as_near():
    texture = np.random.default_rng(2).random((1, 16, 16), np.float32)
    near, far = look(texture, view(3.3, 5.7), (4, 4)), look(texture, view(3.3 + 16e6, 5.7 - 16e6), (4, 4))
    assert np.allclose(near, far, atol=1e-5)
