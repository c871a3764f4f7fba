"""Scores by named protocol: a number without its protocol cannot be compared with another.

A protocol says how a restored frame is prepared, what is computed of it, and which mean is its number. Every restored
frame is scored by several of them in one pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.metrics import psnr, ssim

Averaging = Literal["frames", "sequences"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One method's frame.

    Attributes:
        image: (3, H, W) float32, about [0, 1], as the method gave it.
        rgb8: (3, H, W) uint8, clamped and rounded.
    """

    image: Tensor
    rgb8: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """What the cameras saw in one exposure, all on one device.

    Attributes:
        blurry: (3, H, W) uint8.
        sharp: (3, H, W) uint8; None where there is none.
        counts: (K, H / scale, W / scale), spikes per bin.
        frames_per_bin: K numbers of spike frames.
        instant: of the sharp frame, in spike frames from the start of the exposure.
        scale: RGB pixels per spike pixel, along a side.
    """

    blurry: Tensor
    sharp: Tensor | None
    counts: Tensor
    frames_per_bin: Sequence[int]
    instant: float
    scale: int


Score = Callable[[Candidate, Shot], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a restored frame is scored.

    Attributes:
        name: stands beside every number.
        text: its definition, for people.
        metrics: names of what `score` gives; `psnr` (dB) and `ssim` come first.
        averaging: what its number is the mean of; the other mean is told as well.
        score: the values of one frame, by metric.
    """

    name: str
    text: str
    metrics: tuple[str, ...] = ("psnr", "ssim")
    averaging: Averaging = "frames"
    score: Score


def _rgb8(candidate: Candidate, shot: Shot) -> Mapping[str, float]:
    assert shot.sharp is not None
    return {
        "psnr": psnr(candidate.rgb8, shot.sharp).item(),
        "ssim": ssim(candidate.rgb8, shot.sharp).item(),
    }


DEFAULT = "rgb8-all"
PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name=DEFAULT,
            text=(
                "clamped to [0, 1] and rounded to 8 bit; PSNR over RGB; SSIM 11x11 Gaussian sigma 1.5, valid region, "
                "mean of the channels; every frame with a sharp one"
            ),
            score=_rgb8,
        ),
    )
}
