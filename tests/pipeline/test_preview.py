"""Pictures of spikes show the light that made them."""

import numpy as np
import pytest

from pipeline.dat import pack_rows
from pipeline.preview import contact_sheet, enlarge, tfi, tfp, to_grey8, voxel_preview
from pipeline.simulation.camera import SpikeCamera


def ramp_spikes(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Light from 0.1 to 1 from left to right, filmed by a perfect camera with threshold 2."""
    light = np.tile(np.linspace(0.1, 1.0, 13), (8, 1))
    return light, SpikeCamera(threshold=2.0).expose([light] * frames, np.random.default_rng(0))


def test_counts_in_a_window_give_back_the_light():
    light, spikes = ramp_spikes()
    assert np.abs(tfp(pack_rows(spikes), width=13, threshold=2.0) - light).max() <= 2 / 400 + 1e-6


def test_intervals_give_back_the_light_of_an_instant():
    light, spikes = ramp_spikes()
    # An interval of n frames was one of 2 / light, rounded up or down.
    error = np.abs(2 / tfi(spikes, 200, threshold=2.0) - 2 / light)
    assert error.max() < 1


def test_an_interval_by_hand():
    spikes = np.zeros((9, 1, 3), np.uint8)
    spikes[[1, 5], 0, 0] = 1  # four frames apart
    spikes[2, 0, 1] = 1  # no spike afterwards
    assert tfi(spikes, 3, threshold=2.0).tolist() == [[0.5, 0.0, 0.0]]
    assert tfi(spikes, 5, threshold=2.0)[0, 0] == 0.5
    assert tfi(spikes, 0).tolist() == [[0.0, 0.0, 0.0]]


def test_refuses_windows_without_frames():
    with pytest.raises(ValueError, match="no spike frames"):
        tfp(np.zeros((0, 4, 1), np.uint8), width=8)
    with pytest.raises(ValueError, match="frame 4 is not one of 4"):
        tfi(np.zeros((4, 2, 2), np.uint8), 4)


def test_grey_runs_from_no_light_to_white():
    image = np.linspace(0, 2, 256, dtype=np.float32).reshape(16, 16)
    assert to_grey8(image, white=2.0).reshape(-1).tolist() == list(range(256))
    assert to_grey8(np.zeros((4, 4), np.float32)).max() == 0


def test_one_hot_pixel_does_not_darken_the_picture():
    image = np.full((100, 100), 0.5, np.float32)
    image[3, 3] = 50
    assert np.median(to_grey8(image)) == 255


def test_a_lone_bright_pixel_still_shows():
    image = np.zeros((100, 100), np.float32)
    image[3, 3] = 0.5
    assert to_grey8(image)[3, 3] == 255


def test_voxel_preview_shows_the_bins_around_an_instant():
    counts = np.zeros((16, 4, 4), np.uint8)
    counts[7:9, 1, 2] = 3
    counts[0, 0, 0] = 9
    around = voxel_preview(counts, [4] * 16, around=8)
    assert (around > 0).tolist() == (counts[8] > 0).tolist()
    assert voxel_preview(counts)[0, 0] == 255
    assert voxel_preview(counts, around=0)[0, 0] == 255
    assert voxel_preview(counts, around=16).max() == 0


def test_enlarge_repeats_pixels():
    assert enlarge(np.array([[1, 2]], np.uint8), 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_contact_sheet_keeps_every_pixel_and_writes_labels():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    colour = rng.integers(0, 256, (3, 20, 50), dtype=np.uint8)
    sheet = contact_sheet([grey, colour, grey], ["spikes", "sharp 31.2 dB", ""], columns=2)
    assert sheet.shape == (3, 8 + 2 * (30 + 20 + 8), 8 + 2 * (50 + 8))
    assert (sheet[:, 28:58, 8:48] == grey).all()
    assert (sheet[:, 28:48, 66:116] == colour).all()
    assert sheet[:, 8:28, 8:48].min() < 60
    assert (sheet[:, 66:86, 8:48] == 255).all()


def test_refuses_a_sheet_without_pictures_or_labels():
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([], [])
    with pytest.raises(ValueError, match="1 pictures and 2 labels"):
        contact_sheet([np.zeros((4, 4), np.uint8)], ["a", "b"])
