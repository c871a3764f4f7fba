"""PSNR and SSIM of single frames; `model.evaluation.protocols` has what other protocols make of them.

Protocol `rgb8-all`: clamp to [0, 1], scale by 255, round half to even to 8 bit; PSNR over the three RGB channels
together; SSIM (Wang et al., 2004) with an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, over
the region where the whole window lies inside the frame, the mean of the three channels; every frame with a sharp
one is scored. Accumulation is exact (integers) for PSNR and float64 for SSIM.
"""

import math

import torch
from torch import Tensor

from model.similarity import Window, gaussian_taps, similarity

LEVELS = 255
GAUSSIAN = Window(taps=gaussian_taps(11, sigma=1.5))
"""The window of Wang et al., inside the frame only."""


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
    error = first.int().sub_(second).square_().sum(dim=(-3, -2, -1), dtype=torch.int64)
    mean_error = error.double() / math.prod(first.shape[-3:])
    return 10.0 * torch.log10(LEVELS**2 / mean_error)


def ssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity of each frame, at most 1; arguments and result as for `psnr`.

    Raises:
        ValueError: a side shorter than the window of 11 pixels.
    """
    first, second = (frames.reshape(-1, *frames.shape[-3:]) for frames in _pair(restored, sharp))
    scores = [similarity(x, y, GAUSSIAN, LEVELS) for x, y in zip(first, second, strict=True)]
    return torch.stack(scores).reshape(restored.shape[:-3])


def psnr_as_is(restored: Tensor, sharp: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB of frames (..., C, H, W) that are neither clamped nor rounded, float64 (...)."""
    error = (restored.double() - sharp.double()).square().mean(dim=(-3, -2, -1))
    return 10.0 * torch.log10(peak**2 / error)


def luma(frames: Tensor) -> Tensor:
    """The Y channel of RGB frames, as ITU-R BT.601 has it: 16 for black and 235 for white, not rounded.

    Args:
        frames: (..., 3, H, W) with levels 0 to 255.

    Returns:
        float64 (..., 1, H, W).
    """
    red, green, blue = frames.double().unbind(dim=-3)
    return (16 + (65.481 * red + 128.553 * green + 24.966 * blue) / LEVELS).unsqueeze(-3)


def _pair(restored: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    if restored.shape != sharp.shape or restored.ndim < 3 or restored.shape[-3] != 3:
        raise ValueError(f"expected two (..., 3, H, W), got {tuple(restored.shape)} and {tuple(sharp.shape)}")
    return to_rgb8(restored), to_rgb8(sharp)
