"""Spike counts and light lie on a line, and what is not a line is told from it."""

import numpy as np
import pytest

from pipeline.physics import correlation, fit_light, grey_light, unclipped
from pipeline.simulation.camera import SpikeCamera

LIGHT = np.add.outer(np.linspace(0.1, 0.5, 24), np.linspace(0.0, 0.4, 32))


def counts_of(light: np.ndarray, frames: int = 200) -> np.ndarray:
    spikes = SpikeCamera(threshold=2.0).expose([light] * frames, np.random.default_rng(0))
    return spikes.sum(axis=0, dtype=np.int64)


def image_of(light: np.ndarray, scale: int = 1) -> np.ndarray:
    values = np.round(255 * light).astype(np.uint8)
    return np.broadcast_to(values.repeat(scale, 0).repeat(scale, 1), (3, *(scale * n for n in values.shape)))


@pytest.mark.parametrize("scale", [1, 2])
def test_the_line_is_that_of_an_integrate_and_fire_camera(scale):
    fit = fit_light(image_of(LIGHT, scale), counts_of(LIGHT), scale)
    assert fit.gamma == 1.0 and fit.r2 > 0.99
    assert fit.slope == pytest.approx(2.0 / 200, rel=0.02) and abs(fit.offset) < 0.01


def test_gamma_is_found_by_the_better_fit():
    fit = fit_light(image_of(LIGHT ** (1 / 2.2)), counts_of(LIGHT), 1)
    assert fit.gamma == 2.2 and fit.r2 > 0.99 and fit.slope == pytest.approx(0.01, rel=0.03)


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    image, counts = rng.integers(0, 250, (3, 8, 8), np.uint8), rng.integers(0, 40, (8, 8))
    fit = fit_light(image, counts, 1)
    y = grey_light(image, 1, fit.gamma).ravel()
    slope, offset = np.polyfit(counts.ravel(), y, 1)
    assert (fit.slope, fit.offset) == pytest.approx((slope, offset))
    assert fit.r2 == pytest.approx(np.corrcoef(counts.ravel(), y)[0, 1] ** 2)


def test_grey_is_the_mean_of_colours_and_blocks():
    image = np.zeros((3, 2, 4), np.uint8)
    image[0, 0, 0], image[1, 1, 1], image[2, 0, 2] = 120, 240, 60
    assert grey_light(image, 2).tolist() == [[360 / 12 / 255, 60 / 12 / 255]]
    assert grey_light(image, 2, 2.2) == pytest.approx(
        np.array([[(120 / 255) ** 2.2 + (240 / 255) ** 2.2, (60 / 255) ** 2.2]]) / 12
    )


def test_clipped_pixels_are_left_out_unless_nearly_all_are():
    image = np.full((3, 4, 4), 100, np.uint8)
    image[1, 0, 0] = 255
    assert unclipped(image, 2).tolist() == [[False, True], [True, True]]
    assert unclipped(np.full((3, 4, 4), 255, np.uint8), 2).all()
    bright = np.minimum(2.2 * LIGHT, 1)
    assert fit_light(image_of(bright), counts_of(1.1 * LIGHT), 1).r2 > 0.98


def test_an_image_that_darkens_with_the_spikes_does_not_fit():
    fit = fit_light(image_of(1 - LIGHT), counts_of(LIGHT), 1)
    assert fit.r2 == 0.0 and fit.slope < 0


def test_nothing_is_told_by_flat_images_or_counts():
    flat = np.full((3, 8, 8), 9, np.uint8)
    fit = fit_light(flat, np.arange(64).reshape(8, 8), 1)
    assert (fit.r2, fit.slope) == (0.0, 0.0)
    fit = fit_light(image_of(LIGHT), np.full(LIGHT.shape, 3), 1)
    assert (fit.r2, fit.attainable) == (0.0, 0.0)


def test_what_quantisation_allows_is_said():
    faint = fit_light(image_of(LIGHT), counts_of(LIGHT, 4), 1)
    assert faint.attainable < 0.8 < fit_light(image_of(LIGHT), counts_of(LIGHT, 80), 1).attainable


def test_correlation_is_pearsons():
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 6)), rng.random((5, 6))
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert correlation(a, np.ones((5, 6))) == 0.0
