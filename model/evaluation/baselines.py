"""What the spikes give without learning anything: the estimate every network has to beat.

A blurry pixel is its mean light over the exposure, and a spike rate is proportional to light. So the light at the
sharp instant is the blurry pixel times the ratio of two rates of the same spike pixel: around that instant, and over
the whole exposure. A pixel's fixed gain cancels in the ratio. Few spikes make a noisy ratio: each pixel trusts the
short, finely smoothed window as far as its spikes carry, then a longer and smoother one, and at last the blurry frame.
The settings, chosen once on generated scenes and the same for all data, trade noise for sharpness. The sharp frame is
never used.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

WINDOWS = ((0.16, 0.4), (0.25, 0.7))
"""Half width of a triangular time window, as a part of the exposure, at least one bin; and the standard deviation in
spike pixels of the Gaussian over its rates. The first is trusted most."""
NOISE = 2.0
"""Variance of the spikes in a window, as far as trust in them goes: a window of N spikes has the weight
N² / (N² + NOISE), as in a Wiener filter for ratios that spread by about 1."""


def spike_only(
    blurry: Tensor, counts: Tensor, frames_per_bin: Sequence[int], sharp_frame: float, scale: int
) -> Tensor:
    """Estimate the sharp frame at an instant of the exposure from a blurry frame and spike counts.

    Args:
        blurry: (3, H, W) uint8.
        counts: (K, H / scale, W / scale), spikes per bin.
        frames_per_bin: K numbers of spike frames.
        sharp_frame: the instant, in spike frames from the start of the exposure.
        scale: RGB pixels per spike pixel, along a side.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        ValueError: the shapes do not fit each other.
    """
    bins, height, width = counts.shape
    if len(frames_per_bin) != bins or blurry.shape != (3, height * scale, width * scale):
        raise ValueError(
            f"blurry {tuple(blurry.shape)}, counts {tuple(counts.shape)}, {len(frames_per_bin)} bins: "
            f"they do not fit at scale {scale}"
        )
    counts = counts.to(torch.float32)
    per_bin = torch.tensor(frames_per_bin, dtype=torch.float32, device=counts.device)
    mean = counts.sum(dim=0) / per_bin.sum()
    ratio = torch.ones_like(mean)
    for half_width, smoothing in reversed(WINDOWS):
        window = time_window(per_bin, sharp_frame, half_width)
        found = _smooth(torch.tensordot(window, counts, dims=1), smoothing)
        steady = _smooth(mean, smoothing) * (window @ per_bin)  # what it were if the light stood still
        trust = steady.square() / (steady.square() + NOISE)
        ratio = torch.lerp(ratio, found / steady.clamp(min=1.0e-6), trust)
    ratio = functional.interpolate(ratio[None, None], scale_factor=scale, mode="bilinear")[0]
    return (blurry.to(torch.float32) / 255 * ratio).clamp(0, 1)


def time_window(frames_per_bin: Tensor, sharp_frame: float, half_width: float) -> Tensor:
    """Triangular weights (K,) of the bins around an instant; an empty bin weighs nothing.

    Args:
        half_width: of the triangle, as a part of the exposure; it is one bin at least.
    """
    ends = frames_per_bin.cumsum(dim=0)
    middles = ends - frames_per_bin / 2
    reach = torch.maximum(half_width * ends[-1], frames_per_bin.max())
    weights = (1 - (middles - sharp_frame).abs() / reach).clamp(min=0)
    return weights * (frames_per_bin > 0)


def _smooth(rates: Tensor, deviation: float) -> Tensor:
    """A 3 x 3 Gaussian over (h, w), edges repeated."""
    side = math.exp(-1 / (2 * deviation**2))
    line = torch.tensor([side, 1.0, side]).to(rates) / (1 + 2 * side)
    padded = functional.pad(rates[None, None], (1, 1, 1, 1), mode="replicate")
    rows = functional.conv2d(padded, line.view(1, 1, 3, 1))
    return functional.conv2d(rows, line.view(1, 1, 1, 3))[0, 0]
