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


def test_half_the_rate_at_the_instant_halves_the_light():
    # 32 frames in 8 bins of 4; the window reaches 5.12 frames from frame 16: bins 3 and 4, one spike each of 4 frames.
    counts = torch.tensor([3, 3, 2, 1, 1, 2, 2, 2]).view(8, 1, 1).expand(8, 8, 8)
    blurry = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    expected = 100 / 255 * (1 / 4 + 0.5 / 32) / (16 / 32 + 0.5 / 32)
    restored = spike_only(blurry, counts, [4] * 8, 16.0, 1)
    assert restored.mean().item() == pytest.approx(expected, rel=1e-5)
    assert restored.std() < 1e-6


def test_the_window_is_centred_on_the_instant_and_skips_empty_bins():
    weights = time_window(torch.tensor([2.0, 0.0, 2.0, 2.0, 2.0]), sharp_frame=3.0)
    assert weights.argmax() == 2
    assert weights[1] == 0 and weights[0] == weights[4] == 0


@pytest.mark.parametrize("sharp_frame", [0.0, 8.0])
def test_an_instant_at_the_end_of_the_exposure_has_a_window(sharp_frame):
    weights = time_window(torch.ones(8), sharp_frame)
    assert weights.sum() > 0
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("scale", [1, 2])
def test_it_beats_the_blurry_frame_on_moving_scenes(scale):
    """Noisy camera, moving scene: at least 1 dB better than the blurry input, on average."""
    rng = np.random.default_rng(5)
    rig = RigConfig(num_frames=2, scale=scale, camera=SpikeCamera(shot_noise=0.05, dark_noise=0.01))
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
    assert np.mean(gains) > 1.0


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="scale 2"):
        spike_only(torch.zeros(3, 8, 8), torch.zeros(4, 8, 8), [1] * 4, 2.0, 2)
    with pytest.raises(ValueError, match="3 bins"):
        spike_only(torch.zeros(3, 8, 8), torch.zeros(4, 8, 8), [1] * 3, 2.0, 1)
