"""What can be measured of a restored frame beside the sharp one. Protocols pick from it and say in which terms."""

import math

import torch
from torch import Tensor

from model.evaluation.shots import Candidate, Shot
from model.metrics import GAUSSIAN, LEVELS, luma, psnr, psnr_as_is, ssim
from model.similarity import Window, gaussian_taps, similarity

UNIFORM = Window(taps=(1 / 7,) * 7, of_a_sample=True)
"""The default of scikit-image's `structural_similarity`."""
VOLUME = Window(taps=gaussian_taps(11, sigma=1.5), border="replicate", over_channels=True)
"""MATLAB's `ssim` of an RGB picture, which it takes for a volume of three slices."""
FILTERED = Window(taps=gaussian_taps(13, sigma=1.5), border="mirror", over_channels=True)
"""`scipy.ndimage.gaussian_filter(picture, 1.5)` of a (C, H, W) picture: all axes, cut off at four sigma."""


def psnr_rgb8(candidate: Candidate, shot: Shot) -> float:
    return psnr(candidate.rgb8, _sharp(shot)).item()


def ssim_rgb8(candidate: Candidate, shot: Shot) -> float:
    return ssim(candidate.rgb8, _sharp(shot)).item()


def psnr_luma8(candidate: Candidate, shot: Shot) -> float:
    return psnr_as_is(luma(candidate.rgb8), luma(_sharp(shot)), LEVELS).item()


def ssim_luma8(candidate: Candidate, shot: Shot) -> float:
    return similarity(luma(candidate.rgb8), luma(_sharp(shot)), GAUSSIAN, LEVELS).item()


def ssim_volume8(candidate: Candidate, shot: Shot) -> float:
    return similarity(candidate.rgb8, _sharp(shot), VOLUME, LEVELS).item()


def psnr_as_given(candidate: Candidate, shot: Shot) -> float:
    return psnr_as_is(candidate.image, _unit(shot)).item()


def ssim_luma_as_given(candidate: Candidate, shot: Shot) -> float:
    levels = candidate.image.double() * LEVELS
    return similarity(luma(levels), luma(_sharp(shot)), GAUSSIAN, LEVELS).item()


def psnr_clamped(candidate: Candidate, shot: Shot) -> float:
    return psnr_as_is(_clamped(candidate), _unit(shot)).item()


def ssim_uniform_clamped(candidate: Candidate, shot: Shot) -> float:
    return similarity(2 * _clamped(candidate) - 1, 2 * _unit(shot) - 1, UNIFORM, 2.0).item()


def ssim_filtered_clamped(candidate: Candidate, shot: Shot) -> float:
    return similarity(_clamped(candidate), _unit(shot), FILTERED, 1.0).item()


def psnr_change8(candidate: Candidate, shot: Shot) -> float:
    """PSNR of the change since the exposure before, against the change of the sharp frames; NaN without both."""
    if candidate.before is None or shot.before is None:
        return math.nan
    restored, sharp = (
        now.to(torch.int32) - before
        for now, before in ((candidate.rgb8, candidate.before), (_sharp(shot), shot.before))
    )
    return psnr_as_is(restored, sharp, LEVELS).item()


def _sharp(shot: Shot) -> Tensor:
    assert shot.sharp is not None
    return shot.sharp


def _unit(shot: Shot) -> Tensor:
    return _sharp(shot).double() / LEVELS


def _clamped(candidate: Candidate) -> Tensor:
    return candidate.image.clamp(0, 1).double()
