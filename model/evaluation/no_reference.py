"""How well a restored frame agrees with what both cameras recorded, where there is no sharp frame to compare with.

The law of an integrate-and-fire camera ties them together: spikes are counted in proportion to light. So a frame that
shows the light at its instant foretells the spikes that fell around it, and turned back by the ratio of both rates it
is the blurry frame again. Both are true of the sharp frame up to the noise of counting. Neither sees what the spikes
cannot: detail finer than a spike pixel; colour is seen by the second alone. What follows the spikes to the last one,
their noise included, does better than the sharp frame: the analytic estimate by construction, a network in part.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from model.evaluation.shots import Candidate, Shot

WINDOW = 1 / 8
"""Part of the exposure around the instant whose spikes are foretold, in whole bins, at least one."""
PATCH = 7
"""Side in spike pixels of the patches over which re-blurred light is compared: counting noise averages out in them."""
GAMMAS = (1.0, 2.2)
"""Readings of 8-bit values, as light or as its root; what fits the spikes better is taken, as at ingest."""
CLIPPED = 254
"""From this value on a blurry channel may have been brighter than it says: such pixels are left out."""


def spike_agreement(candidate: Candidate, shot: Shot) -> float:
    """How far the frame foretells the spikes around its instant: 1.0 is as well as noise allows.

    The line from light to spikes is fitted to the blurry frame and the spikes of the whole exposure. What is foretold
    is off by the counting noise and by errors of the frame; this is the root of the expected counting noise over the
    mean square found. It is less than 1 for light that the spikes do not show, and may be more for a frame that has
    copied their noise. Camera noise of other kinds lowers it for every method alike. NaN where no light can be fitted.
    """
    fit = _fit(shot)
    if fit is None:
        return math.nan
    gamma, slope, offset, seen = fit
    near, share = _near(shot)
    foretold, blurry = (
        share * (offset + slope * _grey(image, shot.scale, gamma))[seen]
        for image in (candidate.rgb8, shot.blurry)
    )
    # A steady light of x spikes is counted as floor(x) or ceil(x), so that the mean is right.
    part = (blurry - blurry.floor()).clamp(0, 1)
    noise = (part * (1 - part)).mean()
    return (noise / (near[seen] - foretold).square().mean()).sqrt().item()


def psnr_reblur(candidate: Candidate, shot: Shot) -> float:
    """PSNR in dB of the frame, carried back through the exposure by the spikes, against the blurry frame.

    Restored x (rate over the exposure / rate around the instant) = blurry, at the spikes' resolution and in light,
    summed up over patches before it is divided: rates of single pixels are noisy. NaN where no light can be fitted.
    """
    fit = _fit(shot)
    if fit is None:
        return math.nan
    gamma, _, _, seen = fit
    near, share = _near(shot)
    steady = share * shot.counts.to(torch.float64).sum(dim=0)
    restored, blurry = (_light(image, shot.scale, gamma) for image in (candidate.rgb8, shot.blurry))
    apart = _patches((restored * steady - blurry * near) * seen)
    rates = _patches((near * seen)[None])
    usable = rates[0] >= 1 / PATCH  # in spikes a pixel
    if not usable.any():
        return math.nan
    error = (apart / rates)[:, usable].square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def _near(shot: Shot) -> tuple[Tensor, float]:
    """Spikes of the bins nearest to the instant (h, w) float64, and their share of the exposure."""
    frames = torch.tensor(shot.frames_per_bin, dtype=torch.float64)
    ends = frames.cumsum(dim=0)
    apart = (ends - frames / 2 - shot.instant).abs().masked_fill(frames == 0, math.inf)
    nearest = apart.argsort(stable=True)[: max(1, round(WINDOW * len(frames)))]
    nearest = nearest[frames[nearest] > 0]
    counts = shot.counts.to(torch.float64)[nearest.to(shot.counts.device)].sum(dim=0)
    return counts, (frames[nearest].sum() / ends[-1]).item()


def _fit(shot: Shot) -> tuple[float, float, float, Tensor] | None:
    """Gamma, spikes of an exposure for light 1 and for none, and the pixels (h, w) to go by; None without a line."""
    top = functional.max_pool2d(shot.blurry.amax(dim=0)[None].float(), shot.scale)[0]
    seen, spikes = top < CLIPPED, shot.counts.to(torch.float64).sum(dim=0)
    if not seen.any():
        return None
    found = []
    for gamma in GAMMAS:
        light, counts = _grey(shot.blurry, shot.scale, gamma)[seen], spikes[seen]
        light_off, counts_off = light - light.mean(), counts - counts.mean()
        both, spread = (light_off * counts_off).sum().item(), light_off.square().sum().item()
        if both > 0:
            slope = both / spread
            explained = both * slope / counts_off.square().sum().item()
            found.append((explained, gamma, slope, (counts.mean() - slope * light.mean()).item()))
    if not found:
        return None
    _, gamma, slope, offset = max(found)
    return gamma, slope, offset, seen


def _grey(image: Tensor, scale: int, gamma: float) -> Tensor:
    """The mean of the channels of `_light`: (h, w)."""
    return _light(image, scale, gamma).mean(dim=0)


def _light(image: Tensor, scale: int, gamma: float) -> Tensor:
    """8-bit values (3, H, W) as light at the spikes' resolution: (3, H / scale, W / scale) float64, in [0, 1]."""
    return functional.avg_pool2d((image.to(torch.float64) / 255).pow(gamma), scale)


def _patches(values: Tensor) -> Tensor:
    """Means over all whole patches of (C, h, w)."""
    side = min(PATCH, *values.shape[-2:])
    return functional.avg_pool2d(values, side, stride=1)
