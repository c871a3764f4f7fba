"""PSNR and SSIM under a named protocol: numbers without their protocol cannot be compared.

Protocol `rgb8-all`: clamp to [0, 1], scale by 255, round half to even to 8 bit; PSNR over the three RGB channels
together; SSIM (Wang et al., 2004) with an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, over
the region where the whole window lies inside the frame, the mean of the three channels; every frame with a sharp
one is scored. Accumulation is exact (integers) for PSNR and float64 for SSIM.
"""

import math

import torch
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
LEVELS = 255


def to_rgb8(frames: Tensor) -> Tensor:
    """Clamp to [0, 1], scale by 255 and round half to even, as uint8; uint8 frames come back as they are.

    Raises:
        ValueError: a NaN or an infinity, which an integer cast would turn into an innocent number.
    """
    if frames.dtype == torch.uint8:
        return frames
    if not torch.isfinite(frames).all():
        raise ValueError("the frame holds NaN or infinite values")
    return frames.double().clamp(0, 1).mul(LEVELS).round().to(torch.uint8)


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each frame; `inf` where the two are identical after rounding.

    Args:
        restored, sharp: (..., 3, H, W), float in [0, 1] or uint8.

    Returns:
        float64 (...).
    """
    first, second = _pair(restored, sharp)
    error = (first.int() - second.int()).square().sum(dim=(-3, -2, -1), dtype=torch.int64)
    mean_error = error.double() / math.prod(first.shape[-3:])
    return 10.0 * torch.log10(LEVELS**2 / mean_error)


def ssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity of each frame, at most 1; arguments and result as for `psnr`.

    Raises:
        ValueError: a side shorter than the window of 11 pixels.
    """
    first, second = _pair(restored, sharp)
    if min(first.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels a side, got {first.shape[-2]}x{first.shape[-1]}")
    x, y = first.double(), second.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * LEVELS) ** 2, (0.03 * LEVELS) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def gaussian_window(size: int = SSIM_WINDOW, sigma: float = SSIM_SIGMA) -> list[float]:
    """The weights of a one-dimensional Gaussian window, summing to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _blur(image: Tensor) -> Tensor:
    """Gaussian window over the last two axes, valid region only."""
    for axis in (-2, -1):
        length = image.shape[axis] - SSIM_WINDOW + 1
        rows = (image.narrow(axis, i, length) for i in range(SSIM_WINDOW))
        total = torch.zeros_like(image.narrow(axis, 0, length))
        for weight, row in zip(gaussian_window(), rows, strict=True):
            total.add_(row, alpha=weight)
        image = total
    return image


def _pair(restored: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    if restored.shape != sharp.shape or restored.ndim < 3 or restored.shape[-3] != 3:
        raise ValueError(f"expected two (..., 3, H, W), got {tuple(restored.shape)} and {tuple(sharp.shape)}")
    return to_rgb8(restored), to_rgb8(sharp)
