"""SSIM with any window, against the definition one window at a time, and against scikit-image and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from model.similarity import STRIP, Window, gaussian_taps, similarity


def pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two alike frames, (3, H, W) float64 in [0, 1]."""
    rng = np.random.default_rng(seed)
    x = rng.random((3, height, width))
    return x, np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1)


def ours(x: np.ndarray, y: np.ndarray, window: Window, peak: float = 1.0) -> float:
    return similarity(torch.from_numpy(x), torch.from_numpy(y), window, peak).item()


def by_filter(x: np.ndarray, y: np.ndarray, mode: str, reach: int) -> float:
    """SSIM of all pixels with local means by SciPy, over all three axes."""

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, mode=mode, radius=reach)

    product, squares = mean(x) * mean(y), mean(x) ** 2 + mean(y) ** 2
    covariance, variances = mean(x * y) - product, mean(x * x) + mean(y * y) - squares
    return float(
        ((2 * product + 1e-4) * (2 * covariance + 9e-4) / ((squares + 1e-4) * (variances + 9e-4))).mean()
    )


def test_a_window_of_the_whole_frame_is_worked_out_by_hand():
    # Means 4 and 5, variances 8 and 8, covariance 16/3 over nine pixels, of a sample of nine 9 and 6.
    x = np.array([[0, 4, 8]] * 3, dtype=float)[None]
    y = np.array([[1, 5, 9], [9, 5, 1], [5, 5, 5]], dtype=float)[None]
    product, squares = 4 * 5, 16 + 25
    var_x, var_y, covariance = 96 / 9, 64 / 9, 0.0
    c1, c2 = 0.01, 0.09
    for of_a_sample, factor in ((False, 1), (True, 9 / 8)):
        wanted = (
            (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (factor * (var_x + var_y) + c2))
        )
        window = Window(taps=(1 / 3,) * 3, of_a_sample=of_a_sample)
        assert ours(x, y, window, peak=10) == pytest.approx(wanted, rel=1e-12)


def test_taps_are_the_published_ones():
    taps = gaussian_taps(11, sigma=1.5)
    assert math.fsum(taps) == pytest.approx(1, abs=1e-15)
    assert taps[5] == pytest.approx(0.26601172, abs=1e-8)  # the centre of the usual 11-tap sigma 1.5 window
    assert taps == taps[::-1]


@pytest.mark.parametrize("size", [(11, 11), (STRIP + 10, 13), (STRIP + 11, 2 * STRIP + 10), (70, 97)])
def test_gaussian_and_uniform_windows_equal_scikit_image(size):
    x, y = pair(*size)
    gaussian = structural_similarity(
        x, y, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ours(x, y, Window(taps=gaussian_taps(11, 1.5))) == pytest.approx(gaussian, abs=1e-12)
    uniform = structural_similarity(x, y, channel_axis=0, data_range=1)
    assert ours(x, y, Window(taps=(1 / 7,) * 7, of_a_sample=True)) == pytest.approx(uniform, abs=1e-12)


@pytest.mark.parametrize("size", [(1, 4), (9, 40), (65, 33)])
@pytest.mark.parametrize(("border", "mode", "reach"), [("mirror", "reflect", 6), ("replicate", "nearest", 5)])
def test_windows_over_all_axes_and_the_border_equal_scipy(size, border, mode, reach):
    x, y = pair(*size)
    window = Window(taps=gaussian_taps(2 * reach + 1, 1.5), border=border, over_channels=True)
    assert ours(x, y, window) == pytest.approx(by_filter(x, y, mode, reach), abs=1e-12)


def test_the_size_of_strips_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    x, y = pair(75, 90)
    windows = [
        Window(taps=gaussian_taps(11, 1.5)),
        Window(taps=gaussian_taps(13, 1.5), border="mirror", over_channels=True),
    ]
    before = [ours(x, y, window) for window in windows]
    monkeypatch.setattr("model.similarity.STRIP", 128)
    assert [ours(x, y, window) for window in windows] == pytest.approx(before, abs=1e-13)


def test_bytes_are_taken_as_they_are():
    x, y = (np.rint(255 * frame).astype(np.uint8) for frame in pair(20, 30))
    window = Window(taps=gaussian_taps(11, 1.5))
    assert ours(x, y, window, 255) == ours(x.astype(float), y.astype(float), window, 255)


def test_order_does_not_matter_and_the_same_is_one():
    x, y = pair(40, 50)
    window = Window(taps=gaussian_taps(11, 1.5))
    assert ours(x, y, window) == ours(y, x, window)
    assert ours(x, x, window) == pytest.approx(1, abs=1e-12)


def test_refuses_a_frame_smaller_than_a_window_inside_it():
    with pytest.raises(ValueError, match="7 pixels a side, got 6x9"):
        ours(*pair(6, 9), Window(taps=(1 / 7,) * 7))
