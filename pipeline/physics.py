"""The law of an integrate-and-fire camera, as a check: spikes counted over an exposure are proportional to its light.

A pixel that sees light I fires I / threshold times per spike frame (Huang et al., "1000x faster camera and machine
vision with ordinary devices", Engineering 2023), so the grey of a blurry frame is a straight line in the spikes that
were counted while it was exposed: grey = slope * count + offset. How well the line fits (R²) tells whether image and
spikes show the same light. 8-bit images may be gamma-encoded: both readings are fitted, and the better one is kept.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GAMMAS = (1.0, 2.2)
"""Readings of 8-bit values: as linear light, or as its root (sRGB is close to 2.2)."""
CLIPPED = 254
"""From this value on a channel may have been brighter than it says; such pixels are left out of a fit."""
LEAST_SHARE = 0.1
"""Where fewer of the pixels are not clipped, all are used."""
COUNT_VARIANCE = 1 / 6
"""Variance of a count of steady light: it begins and ends anywhere between two spikes, uniformly and independently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LightFit:
    """The line that fits an image to spike counts: light = slope * count + offset, in [0, 1] after `gamma`.

    Attributes:
        r2: share of the image's variance that the line explains, from 0 to 1; 0 where image or counts are flat, or
            where the image is darker the more spikes there are.
        gamma: how the image's values were read.
        attainable: the R² that the counts' own quantisation would allow a perfect camera.
    """

    slope: float
    offset: float
    r2: float
    gamma: float
    attainable: float


def grey_light(rgb: U8, scale: int, gamma: float = 1.0) -> Doubles:
    """The light of an image (3, H * scale, W * scale) at the spikes' resolution: (H, W) in [0, 1].

    The mean of R, G and B, averaged over `scale` x `scale` pixels after `gamma` is undone.
    """
    if gamma == 1.0:
        return _block_means(rgb.sum(axis=0, dtype=np.uint16), scale) / (3 * 255)
    return _block_means(_decoded(gamma)[rgb].sum(axis=0), scale) / 3


def unclipped(rgb: U8, scale: int) -> Bools:
    """Which spike pixels see no clipped RGB value, (H, W); all of them where that would leave too few."""
    top = rgb.max(axis=0)
    height, width = top.shape
    usable = top.reshape(height // scale, scale, width // scale, scale).max(axis=(1, 3)) < CLIPPED
    return usable if usable.mean() >= LEAST_SHARE else np.ones_like(usable)


def fit_light(rgb: U8, counts: npt.NDArray[np.integer], scale: int) -> LightFit:
    """Fit an image to the spikes counted over its exposure.

    Args:
        rgb: (3, H * scale, W * scale).
        counts: (H, W).
    """
    usable = unclipped(rgb, scale)
    x = counts[usable].astype(np.float64)
    fits = [_line(x, grey_light(rgb, scale, gamma)[usable], gamma) for gamma in GAMMAS]
    return max(fits, key=lambda fit: fit.r2)


def correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Pearson's correlation of the values of two arrays of one shape; 0 where one is flat or has fewer than two."""
    if a.size < 2:
        return 0.0
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def _line(x: Doubles, y: Doubles, gamma: float) -> LightFit:
    x_mean, y_mean = float(x.mean()), float(y.mean())
    dx, dy = x - x_mean, y - y_mean
    x_variance, y_variance, both = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return LightFit(slope=0.0, offset=y_mean, r2=0.0, gamma=gamma, attainable=0.0)
    slope = both / x_variance
    return LightFit(
        slope=slope,
        offset=y_mean - slope * x_mean,
        r2=max(both, 0.0) * both / (x_variance * y_variance),
        gamma=gamma,
        attainable=max(0.0, 1 - COUNT_VARIANCE / x_variance),
    )


def _block_means(image: npt.NDArray[np.generic], scale: int) -> Doubles:
    height, width = image.shape
    if scale == 1:
        return image.astype(np.float64)
    return image.reshape(height // scale, scale, width // scale, scale).mean(axis=(1, 3), dtype=np.float64)


@functools.cache
def _decoded(gamma: float) -> npt.NDArray[np.float32]:
    """The light of every 8-bit value, (256,)."""
    return ((np.arange(256) / 255) ** gamma).astype(np.float32)
