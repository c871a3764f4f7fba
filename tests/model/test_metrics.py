"""PSNR and SSIM against hand-worked numbers and a plain loop over windows."""

import math

import numpy as np
import pytest
import torch

from model.metrics import luma, psnr, psnr_as_is, ssim, to_rgb8


def grey(value: float, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.float32)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Every 11 x 11 window of every channel, one at a time, from the definition."""
    line = np.array([math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)])
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = 6.5025, 58.5225
    values = []
    for a, b in zip(x.astype(float), y.astype(float), strict=True):
        for top in range(a.shape[0] - 10):
            for left in range(a.shape[1] - 10):
                p, q = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_psnr_of_a_constant_error_of_one_level_is_known():
    # Mean squared error 1: 10 log10(255^2) = 48.1308 dB.
    assert psnr(grey(100 / 255), grey(101 / 255)).item() == pytest.approx(48.130803608679, abs=1e-9)


def test_psnr_counts_all_three_channels_together():
    restored = grey(0.0).to(torch.uint8)
    sharp = restored.clone()
    sharp[1] += 30  # squared error 900 in one channel of three: mean 300
    assert psnr(restored, sharp).item() == pytest.approx(10 * math.log10(65025 / 300), abs=1e-12)


def test_one_wrong_value_in_a_large_frame_is_exact():
    sharp = torch.zeros(3, 64, 64, dtype=torch.uint8)
    restored = sharp.clone()
    restored[2, 5, 7] = 1
    assert psnr(restored, sharp).item() == pytest.approx(10 * math.log10(65025 * 3 * 64 * 64), abs=1e-9)


def test_perfect_restoration_is_infinite_psnr_and_ssim_one():
    frame = torch.rand(3, 20, 20)
    assert psnr(frame, frame).item() == math.inf
    assert ssim(frame, frame).item() == pytest.approx(1.0, abs=1e-12)


def test_errors_below_half_a_level_vanish_in_rounding():
    assert psnr(grey(100.4 / 255), grey(100 / 255)).item() == math.inf


def test_values_outside_the_range_are_clamped_not_wrapped():
    assert psnr(grey(1.7), grey(1.0)).item() == math.inf
    assert psnr(grey(-0.5), grey(0.0)).item() == math.inf


def test_rounding_is_to_the_nearest_even_level():
    values = torch.tensor([0.5, 1.5, 2.5, 254.6], dtype=torch.float64) / 255
    assert to_rgb8(values).tolist() == [0, 2, 2, 255]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_values_that_are_not_numbers(bad):
    frame = grey(0.5)
    frame[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        psnr(frame, grey(0.5))


def test_ssim_of_two_constants_is_the_luminance_term():
    # Variances vanish: (2 * 100 * 150 + 6.5025) / (100^2 + 150^2 + 6.5025).
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert ssim(grey(100 / 255), grey(150 / 255)).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("size", [(11, 11), (11, 17), (23, 14)])
def test_ssim_equals_the_plain_definition(size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3, *size), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, 25, x.shape), 0, 255).astype(np.uint8)
    value = ssim(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert value == pytest.approx(slow_ssim(x, y), abs=1e-10)
    assert value == ssim(torch.from_numpy(y), torch.from_numpy(x)).item()


def test_psnr_as_is_neither_clamps_nor_rounds():
    # Squared errors 0.04 in one channel of three: mean 0.04 / 3.
    restored = torch.stack([torch.full((4, 4), value) for value in (1.2, 0.5, -0.1)])
    sharp = torch.stack([torch.full((4, 4), value) for value in (1.0, 0.5, -0.1)])
    assert psnr_as_is(restored, sharp).item() == pytest.approx(10 * math.log10(3 / 0.04), abs=1e-5)
    assert psnr_as_is(2 * restored, 2 * sharp, peak=2).item() == pytest.approx(
        psnr_as_is(restored, sharp).item()
    )


def test_luma_is_that_of_video():
    colours = {
        (0, 0, 0): 16,
        (255, 255, 255): 235,
        (255, 0, 0): 81.481,
        (0, 255, 0): 144.553,
        (0, 0, 255): 40.966,
    }
    for colour, wanted in colours.items():
        assert luma(torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)).item() == pytest.approx(wanted)


def test_a_batch_is_scored_frame_by_frame():
    x, y = torch.rand(2, 3, 3, 12, 13), torch.rand(2, 3, 3, 12, 13)
    for metric in (psnr, ssim):
        together = metric(x, y)
        assert together.shape == (2, 3)
        assert together.dtype == torch.float64
        assert together[1, 2] == metric(x[1, 2], y[1, 2])


def test_refuses_frames_of_different_shapes_and_frames_under_the_window():
    with pytest.raises(ValueError, match="expected two"):
        psnr(grey(0, 16, 16), grey(0, 16, 17))
    with pytest.raises(ValueError, match="expected two"):
        psnr(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(grey(0, 10, 16), grey(0, 10, 16))
