"""The physics estimate: exact where physics is, quiet where light is still, better than blur where it moves."""

import numpy as np
import pytest
import torch

from model.evaluation.baselines import spike_only, time_window
from model.metrics import psnr
from pipeline.simulation.camera import SpikeCamera
from pipeline.simulation.rig import RigConfig, film
from pipeline.simulation.scenes import SceneConfig, random_scene
from pipeline.voxels import bin_spikes, frames_per_bin


def test_light_that_does_not_change_leaves_the_frame_as_it_is():
    blurry = torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8)
    counts = torch.full((8, 8, 12), 3, dtype=torch.uint8)
    restored = spike_only(blurry, counts, [4] * 8, 16.0, 2)
    assert restored.dtype == torch.float32
    assert torch.allclose(restored, blurry / 255, atol=1e-6)


def test_no_spikes_at_all_leave_the_frame_as_it_is():
    blurry = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(spike_only(blurry, torch.zeros(8, 8, 8), [4] * 8, 16.0, 1), blurry / 255, atol=1e-6)


def test_a_lower_rate_at_the_instant_darkens_as_far_as_the_spikes_are_trusted():
    # 32 frames in 8 bins of 4. The short window reaches 5.12 frames from frame 16 and gives bins 3 and 4 the weight
    # 1 - 2 / 5.12; the long one reaches 8 and gives them 3 / 4, and bins 2 and 5 a quarter: 16 spikes in all.
    counts = torch.tensor([3, 3, 2, 1, 1, 2, 2, 2]).view(8, 1, 1).expand(8, 8, 8)
    blurry = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    short, long = 2 * (1 - 2 / 5.12), 2 * 3 / 4 + 2 / 4
    ratio = 1.0
    for found, steady in ((2 * 3 / 4 + 4 / 4, 2 * long), (short, 2 * short)):  # 2 spikes a bin on average
        trust = steady**2 / (steady**2 + 2)
        ratio = trust * found / steady + (1 - trust) * ratio
    restored = spike_only(blurry, counts, [4] * 8, 16.0, 1)
    assert restored.mean().item() == pytest.approx(100 / 255 * ratio, rel=1e-5)
    assert restored.std() < 1e-6


def test_few_spikes_move_the_frame_less_than_many_of_the_same_ratio():
    blurry = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    shape = torch.tensor([3, 3, 2, 1, 1, 2, 2, 2]).view(8, 1, 1).expand(8, 8, 8)
    changes = [
        1 - spike_only(blurry, many * shape, [200] * 8, 800.0, 1).mean().item() / (100 / 255)
        for many in (0.1, 1, 10)
    ]
    assert 0 < changes[0] < 0.05 < changes[1] < changes[2] < 0.5
    assert changes[2] == pytest.approx(0.5, abs=0.01)  # trusted in full: half the rate


def test_the_window_is_centred_on_the_instant_and_skips_empty_bins():
    weights = time_window(torch.tensor([2.0, 0.0, 2.0, 2.0, 2.0]), 3.0, 0.16)
    assert weights.argmax() == 2
    assert weights[1] == 0 and weights[0] == weights[4] == 0


@pytest.mark.parametrize("sharp_frame", [0.0, 8.0])
def test_an_instant_at_the_end_of_the_exposure_has_a_window(sharp_frame):
    weights = time_window(torch.ones(8), sharp_frame, 0.16)
    assert weights.sum() > 0
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize(
    ("scale", "threshold", "gain"), [(1, 1, 2.0), (1, 4, 0.3), (2, 1, 1.0), (2, 4, 0.1), (4, 2, 0.0)]
)
def test_it_beats_the_blurry_frame_on_moving_scenes_also_with_few_spikes(scale, threshold, gain):
    """Noisy cameras with 17, 8 and 4 spikes an exposure: never worse than the blurry input, on average."""
    rng = np.random.default_rng(5)
    camera = SpikeCamera(threshold=2.0 * threshold, shot_noise=0.05, dark_noise=0.01)
    rig = RigConfig(num_frames=2, scale=scale, camera=camera)
    gains = []
    for _ in range(2):
        recording = film(random_scene(SceneConfig(height=64, width=96, rig=rig), rng), rig, rng)
        for (start, stop), blurry, sharp in zip(rig.spans, recording.blurry, recording.sharp, strict=True):
            counts = torch.from_numpy(bin_spikes(recording.spikes[start:stop], 32))
            bins = frames_per_bin(stop - start, 32).tolist()
            restored = spike_only(torch.from_numpy(blurry), counts, bins, (stop - start) / 2, scale)
            before, after = (
                psnr(x, torch.from_numpy(sharp)).item() for x in (torch.from_numpy(blurry), restored)
            )
            gains.append(after - before)
    assert np.mean(gains) > gain, gains


@pytest.mark.parametrize("scale", [2, 4])
def test_the_ratio_of_a_spike_pixel_lies_over_the_rgb_pixels_it_sees(scale):
    """Turned over with the picture, the estimate turns over: no half pixel is lost between the resolutions."""
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (4, 6, 8), generator=rng)
    blurry = torch.randint(0, 200, (3, 6 * scale, 8 * scale), generator=rng, dtype=torch.uint8)
    plain = spike_only(blurry, counts, [9] * 4, 18.0, scale)
    turned = spike_only(blurry.flip(1, 2), counts.flip(1, 2), [9] * 4, 18.0, scale)
    assert torch.allclose(turned.flip(1, 2), plain, atol=1e-6)


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="scale 2"):
        spike_only(torch.zeros(3, 8, 8), torch.zeros(4, 8, 8), [1] * 4, 2.0, 2)
    with pytest.raises(ValueError, match="3 bins"):
        spike_only(torch.zeros(3, 8, 8), torch.zeros(4, 8, 8), [1] * 3, 2.0, 1)
