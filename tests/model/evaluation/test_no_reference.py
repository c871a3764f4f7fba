"""Agreement of a frame with spikes and blur: exact where it can be worked out, and right about what is better."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.evaluation.no_reference import psnr_reblur, spike_agreement
from model.evaluation.protocols import PROTOCOLS
from model.evaluation.shots import Candidate, Shot
from pipeline.simulation.camera import SpikeCamera
from pipeline.simulation.rig import RigConfig, film
from pipeline.simulation.scenes import SceneConfig, random_scene
from pipeline.voxels import bin_spikes, frames_per_bin


def bands(*values: int) -> torch.Tensor:
    """Columns of one value each, eight wide: (8, 8 n)."""
    return torch.tensor(values, dtype=torch.uint8).repeat_interleave(8).expand(8, -1).contiguous()


def grey(*values: int) -> torch.Tensor:
    return bands(*values).expand(3, -1, -1).contiguous()


def candidate(rgb8: torch.Tensor) -> Candidate:
    return Candidate(image=rgb8 / 255, rgb8=rgb8)


def shot(blurry: torch.Tensor, near: torch.Tensor, elsewhere: torch.Tensor) -> Shot:
    """Eight bins of four spike frames; the fourth is the one around the instant, the first has what is elsewhere."""
    counts = torch.zeros(8, *near.shape, dtype=torch.uint8)
    counts[0], counts[3] = elsewhere, near
    return Shot(blurry=blurry, sharp=None, counts=counts, frames_per_bin=[4] * 8, instant=14.0, scale=1)


def test_spikes_are_foretold_by_the_line_from_light_to_spikes():
    # Lights of 0.2, 0.4 and 0.6 gave 10, 20 and 30 spikes; an eighth of that is 1.25, 2.5 and 3.75, and fell were 1, 3
    # and 4. Counting noise is 1/4 * 3/4, 1/2 * 1/2 and 3/4 * 1/4: 0.625 in all.
    recorded = shot(grey(51, 102, 153), bands(1, 3, 4), bands(9, 17, 26))
    found = spike_agreement(candidate(grey(51, 102, 153)), recorded)
    assert found == pytest.approx(math.sqrt(0.625 / (0.25**2 + 0.5**2 + 0.25**2)), rel=1e-9)
    found = spike_agreement(candidate(grey(102, 102, 102)), recorded)  # foretells 2.5 everywhere
    assert found == pytest.approx(math.sqrt(0.625 / (1.5**2 + 0.5**2 + 1.5**2)), rel=1e-9)


def test_pixels_that_were_clipped_are_left_out():
    recorded = shot(grey(51, 102, 153, 255), bands(1, 3, 4, 32), bands(9, 17, 26, 224))
    found = spike_agreement(candidate(grey(51, 102, 153, 0)), recorded)
    assert found == pytest.approx(math.sqrt(0.625 / (0.25**2 + 0.5**2 + 0.25**2)), rel=1e-9)


def test_values_that_are_the_root_of_light_are_read_as_such():
    light = torch.tensor([0.2, 0.4, 0.6])
    coded = grey(*(255 * light ** (1 / 2.2)).round().int().tolist())
    found = spike_agreement(candidate(coded), shot(coded, bands(1, 3, 4), bands(9, 17, 26)))
    assert found == pytest.approx(math.sqrt(0.625 / (0.25**2 + 0.5**2 + 0.25**2)), rel=0.02)


def test_a_frame_that_the_spikes_turn_back_into_the_blurry_one_is_reblurred_exactly():
    # Steady light would have given 1, 2 and 3 spikes around the instant; the middle had half of that.
    recorded = shot(grey(51, 102, 153), bands(1, 1, 3), bands(7, 15, 21))
    assert psnr_reblur(candidate(grey(51, 51, 153)), recorded) == math.inf
    assert 5 < psnr_reblur(candidate(grey(51, 102, 153)), recorded) < 20


def test_reblurring_is_that_of_a_plain_loop_over_patches():
    rng = np.random.default_rng(0)
    picture, blurry = rng.integers(20, 200, (2, 3, 12, 11), dtype=np.uint8)
    near, elsewhere = rng.integers(1, 4, (12, 11)), blurry.mean(axis=0).astype(int) // 2
    recorded = shot(*(torch.from_numpy(part.astype(np.uint8)) for part in (blurry, near, elsewhere)))
    errors = []
    for y in range(12 - 6):
        for x in range(11 - 6):
            patch = np.s_[..., y : y + 7, x : x + 7]
            steady = (near + elsewhere)[patch] / 8
            apart = picture[patch] / 255 * steady - blurry[patch] / 255 * near[patch]
            errors += [(apart[channel].mean() / near[patch].mean()) ** 2 for channel in range(3)]
    expected = -10 * math.log10(np.mean(errors))
    assert psnr_reblur(candidate(torch.from_numpy(picture)), recorded) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("measure", [psnr_reblur, spike_agreement])
def test_without_light_that_the_spikes_follow_there_is_no_number(measure):
    flat = shot(grey(80, 80), bands(1, 2), bands(3, 4))
    for recorded in (
        flat,
        replace(flat, blurry=grey(51, 102), counts=torch.zeros_like(flat.counts)),
        replace(flat, blurry=grey(255, 255)),
    ):
        assert math.isnan(measure(candidate(grey(80, 80)), recorded))


@pytest.fixture(scope="module", params=[(1, 1), (1, 4), (2, 2)], ids=str)
def filmed(request):
    """Exposures of moving scenes with their sharp frames, by spike cameras of several resolutions and thresholds."""
    scale, threshold = request.param
    rig = RigConfig(
        num_frames=2,
        scale=scale,
        camera=SpikeCamera(threshold=2.0 * threshold, shot_noise=0.05, gain_spread=0.02),
    )
    shots = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        recording = film(random_scene(SceneConfig(height=96, width=96, rig=rig), rng), rig, rng)
        for (start, stop), blurry, sharp in zip(rig.spans, recording.blurry, recording.sharp, strict=True):
            shots.append(
                Shot(
                    blurry=torch.from_numpy(blurry),
                    sharp=torch.from_numpy(sharp),
                    counts=torch.from_numpy(bin_spikes(recording.spikes[start:stop], 16)),
                    frames_per_bin=frames_per_bin(stop - start, 16).tolist(),
                    instant=(stop - start) / 2,
                    scale=scale,
                )
            )
    return shots


def means(shots, spoil):
    made = [(candidate(spoil(one)), one) for one in shots]
    return tuple(np.mean([measure(*each) for each in made]) for measure in (psnr_reblur, spike_agreement))


def test_sharp_frames_are_as_good_as_noise_allows_and_others_are_worse(filmed):
    """Sharp, half way to the blur, all the way, and sharp in the wrong place; spikes that are few tell less."""
    sharp = means(filmed, lambda one: one.sharp)
    between = means(filmed, lambda one: ((one.sharp.int() + one.blurry) // 2).to(torch.uint8))
    blurry = means(filmed, lambda one: one.blurry)
    moved = means(filmed, lambda one: torch.roll(one.sharp, 3 * one.scale, dims=2))
    assert sharp[1] == pytest.approx(1, abs=0.06)
    assert sharp[1] > between[1] > blurry[1] > moved[1]
    assert sharp[0] > blurry[0] > moved[0]


def test_colour_is_seen_by_the_blurry_frame_alone(filmed):
    """Light moved from one channel to another is the same to the spikes."""
    right, turned = means(filmed, lambda one: one.sharp), means(filmed, lambda one: one.sharp.roll(1, dims=0))
    assert turned[1] == pytest.approx(right[1], abs=1e-9)
    assert turned[0] < right[0] - 1


def test_its_protocol_scores_frames_without_a_sharp_one(filmed):
    protocol, one = PROTOCOLS["no-reference"], replace(filmed[0], sharp=None)
    assert not protocol.needs_sharp
    values = protocol.score(candidate(one.blurry), one)
    assert tuple(values) == protocol.metrics == ("psnr_reblur", "spikes")
