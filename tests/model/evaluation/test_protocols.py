"""Protocols: what each computes of a frame, by hand and by another implementation."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol, expanded
from tests.model.evaluation.pairs import candidate, frames, shot

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

STORED = {
    "rgb8-all": {"psnr": 23.815866212, "ssim": 0.880557141},
    "kair": {"psnr": 23.815866212, "ssim": 0.880557141, "psnr_y": 29.750538035, "ssim_y": 0.939848493},
    "kair-matlab-like": {"psnr": 23.815866212, "ssim": 0.948279619},
    "spkdeblurnet": {"psnr": 23.564076743, "ssim": 0.939925292},
    "ssdm": {"psnr": 23.799418977, "ssim": 0.894624275},
    "shiftnet": {"psnr": 23.799418977, "ssim": 0.948112390},
    "shiftnet-48": {"psnr": 23.799418977, "ssim": 0.948112390},
    "rgb8-change": {"psnr": 23.815866212, "ssim": 0.880557141, "psnr_change": 11.726884072},
}
"""What the pair of `tests.model.evaluation.pairs` scores; it must never change."""


def reference(name: str, image: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    """The same by scikit-image and SciPy: `image` float64 as given, `sharp` uint8, both (3, H, W)."""
    unit, clamped = sharp / 255, image.clip(0, 1)
    rgb8 = np.rint(255 * clamped).astype(np.uint8)
    psnr8 = peak_signal_noise_ratio(sharp, rgb8)
    ssim8 = structural_similarity(rgb8, sharp, channel_axis=0, data_range=255, **GAUSSIAN)
    psnr_clamped = peak_signal_noise_ratio(unit, clamped, data_range=1)
    if name == "kair":
        luma, sharp_luma = (rgb2ycbcr(frame, channel_axis=0)[0] for frame in (rgb8, sharp))
        return {
            "psnr": psnr8,
            "ssim": ssim8,
            "psnr_y": peak_signal_noise_ratio(sharp_luma, luma, data_range=255),
            "ssim_y": structural_similarity(luma, sharp_luma, data_range=255, **GAUSSIAN),
        }
    if name == "kair-matlab-like":
        return {"psnr": psnr8, "ssim": filtered(rgb8 / 255, unit, mode="nearest", radius=5)}
    if name == "spkdeblurnet":
        luma, sharp_luma = (rgb2ycbcr(frame, channel_axis=0)[0] for frame in (image, unit))
        ssim_y = structural_similarity(luma, sharp_luma, data_range=255, **GAUSSIAN)
        return {"psnr": peak_signal_noise_ratio(unit, image, data_range=1), "ssim": ssim_y}
    if name == "ssdm":
        ours, theirs = 2 * clamped - 1, 2 * unit - 1
        ssim = structural_similarity(ours, theirs, channel_axis=0, data_range=2)
        return {"psnr": peak_signal_noise_ratio(ours, theirs, data_range=2), "ssim": ssim}
    if name.startswith("shiftnet"):
        return {"psnr": psnr_clamped, "ssim": filtered(clamped, unit, mode="reflect", radius=6)}
    return {"psnr": psnr8, "ssim": ssim8}


def filtered(x: np.ndarray, y: np.ndarray, **border: object) -> float:
    """SSIM of pixels in [0, 1] with local means over all three axes."""
    mean_x, mean_y, xx, yy, xy = (gaussian_filter(v, 1.5, **border) for v in (x, y, x * x, y * y, x * y))
    above = (2 * mean_x * mean_y + 0.01**2) * (2 * (xy - mean_x * mean_y) + 0.03**2)
    below = (mean_x**2 + mean_y**2 + 0.01**2) * (xx - mean_x**2 + yy - mean_y**2 + 0.03**2)
    return float((above / below).mean())


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_scores_are_those_of_scikit_image_and_scipy(protocol: Protocol) -> None:
    sharp, image = frames()
    values = protocol.score(candidate(image), shot(sharp))
    wanted = reference(protocol.name, image.double().numpy(), sharp.numpy())
    assert {name: values[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)
    assert tuple(values) == protocol.metrics and protocol.metrics[:2] == ("psnr", "ssim")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_scores_of_a_fixed_pair_stay_what_they_are(protocol: Protocol) -> None:
    sharp, image = frames()
    before = candidate(torch.zeros_like(image)).rgb8
    values = protocol.score(candidate(image, before), shot(sharp, before + 64))
    assert values == pytest.approx(STORED[protocol.name], abs=5e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_cuda_device_gives_the_same_scores(protocol: Protocol) -> None:
    sharp, image = (frame.cuda() for frame in frames())
    before = candidate(torch.zeros_like(image)).rgb8
    values = protocol.score(candidate(image, before), shot(sharp, before + 64))
    assert values == pytest.approx(STORED[protocol.name], abs=5e-9)


def test_rgb8_all_scores_what_was_rounded() -> None:
    sharp = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    values = PROTOCOLS[DEFAULT].score(candidate(sharp / 255 + 2.3 / 255), shot(sharp))
    assert math.isclose(values["psnr"], 20 * math.log10(255 / 2))
    assert values["ssim"] < 1


def test_only_protocols_that_round_call_a_third_of_a_level_perfect() -> None:
    sharp = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    made = candidate(sharp / 255 + 0.3 / 255)
    perfect = {name for name, p in PROTOCOLS.items() if math.isinf(p.score(made, shot(sharp))["psnr"])}
    assert perfect == {"rgb8-all", "kair", "kair-matlab-like", "rgb8-change"}


def test_only_spkdeblurnet_blames_values_outside_the_range() -> None:
    white = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    made = candidate(torch.full((3, 16, 16), 1.1))
    scores = {name: p.score(made, shot(white)) for name, p in PROTOCOLS.items()}
    blamed = {name for name, values in scores.items() if not math.isinf(values["psnr"])}
    assert blamed == {"spkdeblurnet"}
    assert scores["spkdeblurnet"]["psnr"] == pytest.approx(20, abs=1e-4)  # an error of 0.1 everywhere


def test_luma_scores_weigh_colours_by_how_bright_they_look() -> None:
    grey = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    red, green = grey.clone(), grey.clone()
    red[0] += 10
    green[1] += 10
    score = PROTOCOLS["kair"].score
    values = [score(candidate(frame / 255), shot(grey)) for frame in (red, green)]
    assert values[0]["psnr"] == values[1]["psnr"] == pytest.approx(10 * math.log10(255**2 * 3 / 100))
    for found, weight in zip(values, (65.481, 128.553), strict=True):
        assert found["psnr_y"] == pytest.approx(20 * math.log10(255 * 255 / (10 * weight)))


def test_change_sees_flicker_that_frames_do_not() -> None:
    sharp = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    score = PROTOCOLS["rgb8-change"].score
    steady = score(candidate((sharp + 3) / 255, before=sharp + 3), shot(sharp, before=sharp))
    flickers = score(candidate((sharp + 3) / 255, before=sharp - 3), shot(sharp, before=sharp))
    assert steady["psnr"] == flickers["psnr"] == pytest.approx(20 * math.log10(255 / 3))
    assert steady["psnr_change"] == math.inf
    assert flickers["psnr_change"] == pytest.approx(20 * math.log10(255 / 6))
    for made, seen in ((None, sharp), (sharp, None)):
        assert math.isnan(score(candidate(sharp / 255, before=made), shot(sharp, before=seen))["psnr_change"])


def test_shiftnet_48_takes_the_frames_that_shiftnet_takes_of_gopro() -> None:
    lengths = (100, 100, 100, 100, 134, 100, 77, 100, 100, 100, 100)
    used = PROTOCOLS["shiftnet-48"].frames
    assert sum(len(used(length)) for length in lengths) == 1008
    assert (used(51), used(52), used(99), used(100)) == (
        range(2, 2),
        range(2, 50),
        range(2, 50),
        range(2, 98),
    )
    assert len(used(3)) == 0
    assert all(p.frames(51) == range(51) for name, p in PROTOCOLS.items() if name != "shiftnet-48")


def test_a_measure_is_taken_once_however_many_protocols_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sharp, image = frames()
    made = candidate(image)
    first = PROTOCOLS["rgb8-all"].score(made, shot(sharp))
    monkeypatch.setattr("model.evaluation.measures.ssim", None)
    assert PROTOCOLS["kair"].score(made, shot(sharp))["ssim"] == first["ssim"]


def test_every_protocol_is_filed_under_its_name_and_tells_its_mean() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        wanted = "mean of the sequence means" if protocol.averaging == "sequences" else "mean over frames"
        assert wanted in protocol.text or protocol.text.startswith("as rgb8-all; ")


def test_all_stands_for_every_protocol_and_none_comes_twice() -> None:
    assert expanded(["kair", "all", "lpips-vgg", "kair"]) == (
        "kair",
        *(name for name in PROTOCOLS if name != "kair"),
        "lpips-vgg",
    )
    assert expanded(["ssdm"]) == ("ssdm",)
