"""What the spikes give without learning anything: the estimate every network has to beat.

A blurry pixel is its mean light over the exposure, and a spike rate is proportional to light. So the light at the
sharp instant is the blurry pixel times the ratio of two rates of the same spike pixel: around that instant, and over
the whole exposure. A pixel's fixed gain cancels in the ratio. Three settings, chosen once on generated and panned
scenes and the same for all data, trade noise for sharpness. The sharp frame is never used.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 0.16
"""Half width of the triangular time window, as a part of the exposure; at least one bin."""
SMOOTHING = 0.4
"""Standard deviation in spike pixels of the Gaussian over both rates."""
PRIOR_SPIKES = 0.5
"""Spikes per exposure added to both rates: where hardly any spike fell, the ratio tends to 1."""


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
    window = time_window(per_bin, sharp_frame)
    prior = PRIOR_SPIKES / per_bin.sum()
    now = _smooth(torch.tensordot(window, counts, dims=1) / (window @ per_bin)) + prior
    mean = _smooth(counts.sum(dim=0) / per_bin.sum()) + prior
    ratio = functional.interpolate((now / mean)[None, None], scale_factor=scale, mode="bilinear")[0]
    return (blurry.to(torch.float32) / 255 * ratio).clamp(0, 1)


def time_window(frames_per_bin: Tensor, sharp_frame: float) -> Tensor:
    """Triangular weights (K,) of the bins around an instant; an empty bin weighs nothing."""
    ends = frames_per_bin.cumsum(dim=0)
    middles = ends - frames_per_bin / 2
    half_width = max(WINDOW * ends[-1].item(), frames_per_bin.max().item())
    weights = (1 - (middles - sharp_frame).abs() / half_width).clamp(min=0)
    return weights * (frames_per_bin > 0)


def _smooth(rates: Tensor) -> Tensor:
    """A 3 x 3 Gaussian over (h, w), edges repeated."""
    side = torch.exp(torch.tensor(-1 / (2 * SMOOTHING**2)))
    line = torch.stack([side, torch.ones_like(side), side]).to(rates)
    line = line / line.sum()
    padded = functional.pad(rates[None, None], (1, 1, 1, 1), mode="replicate")
    rows = functional.conv2d(padded, line.view(1, 1, 3, 1))
    return functional.conv2d(rows, line.view(1, 1, 1, 3))[0, 0]
