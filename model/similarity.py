"""Structural similarity (SSIM; Wang et al., 2004) with any separable window, in float64.

A frame goes through in strips of some rows, and a window is applied as a product with a banded matrix, which is what
linear algebra libraries are fastest at.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

STRIP, CUDA_STRIP = 32, 128
"""Rows of the map that are computed at once, and columns in a block: few, so that a strip fits a processor's cache;
more on a CUDA device, which would wait for kernels to be launched otherwise.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The weights that local means are taken with, and what happens at the border of a frame.

    Attributes:
        taps: weights along one axis, an odd number that sums to 1; a window is their outer product.
        border: `valid` keeps to windows that lie inside the frame; the others give a value for every pixel: `mirror`
            continues the frame by its reflection, edge pixels included, `replicate` by its edge pixels.
        over_channels: whether the window runs over the channels too, as if they were rows of a volume; not `valid`.
        of_a_sample: whether variances are divided by the number of weights minus one.
    """

    taps: tuple[float, ...]
    border: Literal["valid", "mirror", "replicate"] = "valid"
    over_channels: bool = False
    of_a_sample: bool = False


def gaussian_taps(size: int, sigma: float) -> tuple[float, ...]:
    """The weights of a one-dimensional Gaussian window, summing to 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def similarity(x: Tensor, y: Tensor, window: Window, peak: float) -> Tensor:
    """The mean SSIM of two frames over pixels and channels, at most 1, with K1 = 0.01 and K2 = 0.03.

    Args:
        x, y: (C, H, W) of any real type.
        peak: the span of the values, L.

    Returns:
        float64, without axes.

    Raises:
        ValueError: a frame with a side shorter than a window that must lie inside it.
    """
    size = len(window.taps)
    if window.border == "valid" and min(x.shape[-2:]) < size:
        raise ValueError(f"SSIM needs {size} pixels a side, got {x.shape[-2]}x{x.shape[-1]}")
    x, y = _bordered(x, window), _bordered(y, window)
    channels, height, width = x.shape
    rows, columns = height - size + 1, width - size + 1
    strip = STRIP if x.device.type == "cpu" else CUDA_STRIP
    x, y = (functional.pad(frame, (0, -columns % strip)) for frame in (x, y))
    local_mean = _LocalMean(window, strip, channels, columns, x.device)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for top in range(0, rows, strip):
        part = slice(top, min(top + strip, rows) + size - 1)
        total += _map(x[:, part].double(), y[:, part].double(), local_mean, window, peak).sum()
    return total / (channels * rows * columns)


def _map(x: Tensor, y: Tensor, local_mean: "_LocalMean", window: Window, peak: float) -> Tensor:
    mean_x, mean_y = local_mean(x), local_mean(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = local_mean(x * y) - product
    variances = local_mean(x * x + y * y) - squares
    if window.of_a_sample:
        weights = len(window.taps) ** 2
        covariance *= weights / (weights - 1)
        variances *= weights / (weights - 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


class _LocalMean:
    """Means over the windows of a strip: (C, R + size - 1, columns in blocks) to (C, R, columns)."""

    def __init__(self, window: Window, strip: int, channels: int, columns: int, device: torch.device) -> None:
        self.columns = columns
        self.band = _band(window.taps, strip).to(device)  # (strip + size - 1, strip)
        self.mixed = _mixing(window, channels).to(device) if window.over_channels else None

    def __call__(self, strip: Tensor) -> Tensor:
        height, width = self.band.shape
        rows = strip.shape[-2] - (height - width)
        means = self.band[: strip.shape[-2], :rows].T @ strip
        means = (means.unfold(-1, height, width) @ self.band).flatten(-2)[..., : self.columns]
        return means if self.mixed is None else torch.tensordot(self.mixed, means, dims=1)


def _band(taps: tuple[float, ...], length: int) -> Tensor:
    """(length + size - 1, length): column i holds the weights from row i on."""
    band = torch.zeros(length + len(taps) - 1, length, dtype=torch.float64)
    for offset, tap in enumerate(taps):
        band.diagonal(-offset).fill_(tap)
    return band


def _mixing(window: Window, channels: int) -> Tensor:
    """(C, C): what each channel gets of each, when the window runs over the channels."""
    places = _continued(channels, window)
    picked = functional.one_hot(places, channels).double()  # (C + size - 1, C)
    return _band(window.taps, channels).T @ picked


def _bordered(frame: Tensor, window: Window) -> Tensor:
    """(C, H, W) with as many rows and columns around it as the border asks for."""
    if window.border == "valid":
        return frame
    rows, columns = (_continued(side, window).to(frame.device) for side in frame.shape[-2:])
    frame, reach = frame.index_select(-2, rows), len(window.taps) // 2
    left, right = (frame.index_select(-1, places) for places in (columns[:reach], columns[-reach:]))
    return torch.cat([left, frame, right], dim=-1)


def _continued(length: int, window: Window) -> Tensor:
    """Which elements an axis consists of, with half a window before and after it."""
    reach = len(window.taps) // 2
    places = torch.arange(-reach, length + reach)
    if window.border == "replicate":
        return places.clamp(0, length - 1)
    places = places % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)
