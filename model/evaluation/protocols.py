"""Scores by named protocol: a number without its protocol cannot be compared with another.

A protocol says how a restored frame is prepared, what is computed of it, and which mean is its number. Every restored
frame is scored by several of them in one pass. Those named after published work follow its evaluation code, and each
says where it does not. Sums are exact or float64, where that code often has float32.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from model.evaluation import measures
from model.evaluation.shots import Candidate, Measure, Shot

Averaging = Literal["frames", "sequences"]
Score = Callable[[Candidate, Shot], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a restored frame is scored.

    Attributes:
        name: stands beside every number.
        text: its definition, for people.
        metrics: names of what `score` gives; `psnr` (dB) and `ssim` come first.
        averaging: what its number is the mean of; the other mean is told as well.
        frames: which frames of a sequence of n are scored, where they have a sharp one.
        score: the values of one frame, by metric; NaN where one is not defined.
    """

    name: str
    text: str
    metrics: tuple[str, ...] = ("psnr", "ssim")
    averaging: Averaging = "frames"
    frames: Callable[[int], range] = range
    score: Score


def score_of(by_name: Mapping[str, Measure]) -> Score:
    """A score made of measures, each of which is computed once a frame however many protocols have it."""

    def score(candidate: Candidate, shot: Shot) -> dict[str, float]:
        return {name: candidate.measured(measure, shot) for name, measure in by_name.items()}

    return score


def _protocol(
    name: str,
    text: str,
    averaging: Averaging = "frames",
    frames: Callable[[int], range] = range,
    **by_name: Measure,
) -> Protocol:
    return Protocol(
        name=name,
        text=text,
        metrics=tuple(by_name),
        averaging=averaging,
        frames=frames,
        score=score_of(by_name),
    )


def in_clips_of_48(num_frames: int) -> range:
    """What is left of a sequence cut into clips of 48 frames, with two more before and after each."""
    return range(2, 2 + max(num_frames - 4, 0) // 48 * 48)


def _shiftnet_text(frames: str) -> str:
    return (
        "clamped to [0, 1], not rounded; PSNR over RGB; SSIM with a Gaussian of sigma 1.5 over rows, columns and "
        f"channels, cut off at 6 pixels and mirrored at the border, every pixel; {frames}; mean over frames; as "
        "Shift-Net's inference/test_deblur.py, but at this network's precision and with its own clips, and without "
        "cutting the sides to multiples of 4"
    )


RGB8 = {"psnr": measures.psnr_rgb8, "ssim": measures.ssim_rgb8}
_SHIFTNET = {"psnr": measures.psnr_clamped, "ssim": measures.ssim_filtered_clamped}
DEFAULT = "rgb8-all"
PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        _protocol(
            DEFAULT,
            "clamped to [0, 1] and rounded to 8 bit; PSNR over RGB; SSIM 11x11 Gaussian sigma 1.5, valid region, "
            "mean of the channels; every frame with a sharp one; mean over frames",
            **RGB8,
        ),
        _protocol(
            "kair",
            "clamped to [0, 1] and rounded to 8 bit; PSNR over RGB; SSIM 11x11 Gaussian sigma 1.5, valid region, mean "
            "of the channels; both again of Y alone (BT.601, 16 to 235, not rounded, peak 255); every frame with a "
            "sharp one; mean of the sequence means; as KAIR's main_test_vrt.py",
            averaging="sequences",
            **RGB8,
            psnr_y=measures.psnr_luma8,
            ssim_y=measures.ssim_luma8,
        ),
        _protocol(
            "kair-matlab-like",
            "clamped to [0, 1] and rounded to 8 bit; PSNR over RGB; SSIM 11x11x11 Gaussian sigma 1.5 over rows, "
            "columns and channels, border repeated, every pixel; every frame with a sharp one; mean over frames; as "
            "KAIR's evaluate_video_deblurring.m, with what MATLAB's ssim does to an RGB picture; never compared with "
            "MATLAB itself",
            psnr=measures.psnr_rgb8,
            ssim=measures.ssim_volume8,
        ),
        _protocol(
            "spkdeblurnet",
            "neither clamped nor rounded; PSNR over RGB; SSIM of Y alone (BT.601, 16 to 235, L = 255), 11x11 Gaussian "
            "sigma 1.5, valid region; every frame with a sharp one; mean over frames; as SpkDeblurNet's valid.py, "
            "whose mean of batch means is this one for batches of one frame",
            psnr=measures.psnr_as_given,
            ssim=measures.ssim_luma_as_given,
        ),
        _protocol(
            "ssdm",
            "clamped to [0, 1], not rounded, and mapped to [-1, 1]; PSNR over RGB with peak 2; SSIM 7x7 uniform, "
            "valid region, sample variances, L = 2, mean of the channels; every frame with a sharp one; mean over "
            "frames; as S-SDM's codes/metrics.py, which takes a peak of 1, though, where no restored pixel is below "
            "0.5",
            psnr=measures.psnr_clamped,
            ssim=measures.ssim_uniform_clamped,
        ),
        _protocol("shiftnet", _shiftnet_text("every frame with a sharp one"), **_SHIFTNET),
        _protocol(
            "shiftnet-48",
            _shiftnet_text(
                "of n frames the third and those after it, in whole clips of 48, as long as two more follow (1008 of "
                "GoPro's 1111; none of fewer than 52)"
            ),
            frames=in_clips_of_48,
            **_SHIFTNET,
        ),
        _protocol(
            "rgb8-change",
            "as rgb8-all; and psnr_change, the PSNR (peak 255) of the restored frame minus the one before it, against "
            "the sharp frame minus the one before it: flicker that single frames do not show; not defined for the "
            "first frame of a run, nor next to a missing sharp frame",
            **RGB8,
            psnr_change=measures.psnr_change8,
        ),
    )
}


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of protocols, each once, with `all` replaced by all those that need nothing but frames."""
    return tuple(dict.fromkeys(each for name in names for each in (PROTOCOLS if name == "all" else [name])))
