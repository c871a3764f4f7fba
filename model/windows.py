"""How a video is cut into windows, and what the tokens of a window are to each other.

A video is channels-last: (B, D, H, W, C), with D frames. Sizes and windows are (D, H, W) tuples. Formulas: Liu et al.,
"Swin Transformer" (2021), in three dimensions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Size3 = tuple[int, int, int]
MASKED_LOGIT = -100.0
"""Added to the logit of tokens from different parts of the video; not -inf: published weights were trained with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPlan:
    """How one layer cuts a video of a given size into windows.

    `regions` is (2, 2, 2, N) int32, indexed by whether the window is the last of its axis, or None without a shift.
    """

    window: Size3
    shift: Size3
    regions: Tensor | None = None


def plan_windows(size: Size3, window: Size3, *, shifted: bool, device: torch.device | str) -> WindowPlan:
    """Fit the window to the video: an axis no longer than its window becomes one window and is not shifted."""
    fits = [s <= w for s, w in zip(size, window, strict=True)]
    effective = size3(s if fit else w for s, w, fit in zip(size, window, fits, strict=True))
    shift = size3(0 if fit or not shifted else w // 2 for w, fit in zip(window, fits, strict=True))
    regions = wrap_regions(effective, shift, device) if any(shift) else None
    return WindowPlan(window=effective, shift=shift, regions=regions)


def wrap_regions(window: Size3, shift: Size3, device: torch.device | str) -> Tensor:
    """The part of the video that each token of a window comes from after a cyclic shift, as (2, 2, 2, N) int32.

    Only the last window of a shifted axis holds tokens from both ends of the video, so the eight combinations of "last
    window in time, down, across" are all there are, whatever the size of the video.
    """
    region = torch.zeros(2, 2, 2, *window, dtype=torch.int32, device=device)
    for axis, (width, moved) in enumerate(zip(window, shift, strict=True)):
        if moved:
            wrapped = torch.arange(width, device=device) >= width - moved
            region.select(axis, 1).add_(
                wrapped.view([-1 if i == axis else 1 for i in range(3)]), alpha=2**axis
            )
    return region.flatten(3)


def partition(x: Tensor, window: Size3) -> Tensor:
    """Cut (B, D, H, W, C), already a multiple of the window, into (B, nD, nH, nW, N, C)."""
    batch, depth, height, width, channels = x.shape
    wd, wh, ww = window
    x = x.view(batch, depth // wd, wd, height // wh, wh, width // ww, ww, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)


def reverse(windows: Tensor, window: Size3) -> Tensor:
    """Put (B, nD, nH, nW, N, C) together again as (B, D, H, W, C)."""
    batch, nd, nh, nw, _, channels = windows.shape
    wd, wh, ww = window
    x = windows.view(batch, nd, nh, nw, wd, wh, ww, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(batch, nd * wd, nh * wh, nw * ww, channels)


def relative_position_index(window: Size3) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, as (N, N) int64."""
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(w) for w in window), indexing="ij")).flatten(1)
    delta = coordinates[:, :, None] - coordinates[:, None, :]
    _, wh, ww = window
    d, h, w = (delta[axis] + window[axis] - 1 for axis in range(3))
    return (d * (2 * wh - 1) + h) * (2 * ww - 1) + w


def position_encoding(height: int, width: int, channels: int) -> Tensor:
    """Sine encoding of the pixels of a window, as (1, height * width, channels) float32; y half first, then x.

    Carion et al., "End-to-End Object Detection with Transformers" (2020), normalised, temperature 10000.
    """
    features = channels // 2

    def encode(count: int) -> Tensor:
        position = torch.arange(1, count + 1, dtype=torch.float32) / (count + 1e-6) * (2 * math.pi)
        exponent = (
            2 * torch.div(torch.arange(features, dtype=torch.float32), 2, rounding_mode="floor") / features
        )
        angle = position[:, None] / 10000.0**exponent
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = encode(height)[:, None].expand(height, width, features)
    x = encode(width)[None].expand(height, width, features)
    return torch.cat((y, x), dim=2).view(1, height * width, channels)


def size3(values: Iterable[int]) -> Size3:
    """Three numbers as a tuple."""
    depth, height, width = values
    return depth, height, width
