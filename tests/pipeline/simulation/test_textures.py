"""Random textures: in range, periodic, soft, and of sprites only what is inside."""

import numpy as np
import pytest

from pipeline.simulation.textures import random_sprite, random_texture, soften


def test_softening_a_point_gives_a_gaussian_that_wraps_around():
    point = np.zeros((1, 16, 16))
    point[0, 0, 0] = 1.0
    soft = soften(point, sigma=1.5)[0]
    offset = np.minimum(np.arange(16), 16 - np.arange(16))
    expected = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    assert np.allclose(soft, expected, atol=1e-4)


def test_textures_are_in_range_full_of_contrast_and_without_a_seam():
    texture = random_texture(np.random.default_rng(0), 256, shapes=60)
    assert texture.shape == (3, 256, 256) and texture.dtype == np.float32
    assert texture.min() >= 0.02 and texture.max() <= 1 and texture.std() > 0.08
    steps = np.abs(np.diff(texture, axis=2, append=texture[:, :, :1])).mean(axis=(0, 1))
    assert steps[-1] < 2 * steps.mean()  # from the last column on to the first is a step like any other


def test_nothing_in_a_texture_is_finer_than_the_picture_can_show():
    texture = random_texture(np.random.default_rng(1), 256, shapes=60)
    power = np.abs(np.fft.fft2(texture - texture.mean())) ** 2
    fine = np.abs(np.fft.fftfreq(256)) > 0.25  # the picture has one pixel for two texels
    assert power[:, fine].sum() + power[:, ~fine][:, :, fine].sum() < 0.02 * power.sum()


@pytest.mark.parametrize("seed", range(4))
def test_a_sprite_is_premultiplied_and_transparent_outside_its_radius(seed):
    sprite = random_sprite(np.random.default_rng(seed), 128, 30.0)
    y, x = np.mgrid[:128, :128] - 63.5
    outside = np.hypot(x, y) > 34
    assert sprite.shape == (4, 128, 128)
    assert sprite[:, outside].max() < 1e-3
    assert np.all(sprite[:3] <= sprite[3] + 1e-3)
    assert 0.1 < (sprite[3] > 0.5).sum() / (np.pi * 30**2) <= 1.05
