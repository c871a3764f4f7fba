"""Pictures of spikes show the light that made them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dat import SpikeStream, open_spikes, pack_rows
from pipeline.previews.preview import contact_sheet, enlarge, mean_light, tfi, tfp, to_grey8, voxel_preview
from pipeline.simulation.camera import SpikeCamera
from pipeline.spike_format import SpikeFormat


class InMemory:
    """A recording (T, H, W) in memory that keeps account of what is read."""

    def __init__(self, spikes: np.ndarray) -> None:
        self.spikes, self.shape, self.frames_read = spikes, spikes.shape, 0

    def packed(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= len(self.spikes)
        self.frames_read += stop - start
        return pack_rows(self.spikes[start:stop])


def gopro_pair(shared_data: Path) -> tuple[SpikeStream, np.ndarray]:
    """The spikes, and the luma of the sharp frame in the mean of 2 x 2 pixels, (360, 640) in [0, 1]."""
    folder = shared_data / "gopro_spike_pair"
    stream = open_spikes(folder / "000226.dat", SpikeFormat(height=360, width=640, rate_hz=Fraction(1920)))
    grey = np.asarray(Image.open(folder / "000226_sharp.png").convert("L"), float)
    return stream, grey.reshape(360, 2, 640, 2).mean(axis=(1, 3)) / 255


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image - reference) ** 2)))


def ramp_spikes(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Light from 0.1 to 1 from left to right, filmed by a perfect camera with threshold 2."""
    light = np.tile(np.linspace(0.1, 1.0, 13), (8, 1))
    return light, SpikeCamera(threshold=2.0).expose([light] * frames, np.random.default_rng(0))


def test_counts_in_a_window_give_back_the_light():
    light, spikes = ramp_spikes()
    assert np.abs(tfp(pack_rows(spikes), width=13, threshold=2.0) - light).max() <= 2 / 400 + 1e-6


def test_any_number_of_frames_is_counted_exactly():
    spikes = np.random.default_rng(0).integers(0, 2, (150, 5, 13), np.uint8)
    for start, stop in ((0, 150), (7, 8), (3, 141)):
        light = mean_light(InMemory(spikes), start, stop, threshold=3.0)
        assert np.allclose(light, 3 * spikes[start:stop].mean(axis=0), atol=1e-6)
        assert np.allclose(light, tfp(pack_rows(spikes[start:stop]), 13, 3.0), atol=1e-6)


def test_intervals_give_back_the_light_of_an_instant():
    light, spikes = ramp_spikes()
    found = tfi(InMemory(spikes), 200, threshold=2.0)
    # An interval of n frames was one of 2 / light, rounded up or down.
    assert np.abs(2 / found.light - 2 / light).max() < 1 and not found.is_bound.any()


def test_an_interval_by_hand():
    """Spikes in frames 1 and 5 of nine, in frame 2 alone, in none, and in the first and the last."""
    spikes = np.zeros((9, 1, 4), np.uint8)
    spikes[[1, 5], 0, 0] = 1
    spikes[2, 0, 1] = 1
    spikes[[0, 8], 0, 3] = 1
    source = InMemory(spikes)
    light, is_bound = tfi(source, 3, threshold=2.0)
    # 5 - 1; at least from 2 to 9, when the recording is over; at least from before 0 to 9; 8 - 0
    assert np.allclose(light, [[2 / 4, 2 / 7, 2 / 10, 2 / 8]])
    assert is_bound.tolist() == [[False, True, True, False]]
    assert np.allclose(tfi(source, 5).light[0, 0], 1 / (9 - 5))  # a spike at the instant begins the interval
    assert tfi(source, 5).is_bound[0, 0] and not tfi(source, 4).is_bound[0, 0]
    assert np.allclose(tfi(source, 0).light, [[1 / 2, 1 / 3, 1 / 10, 1 / 8]])
    assert tfi(source, 8).is_bound.all()


@pytest.mark.parametrize("reach", [1, 5, 16, 17, 40, 256])
def test_intervals_are_those_of_a_plain_search(reach):
    spikes = (np.random.default_rng(1).random((60, 4, 9)) < np.linspace(0.01, 0.5, 9)).astype(np.uint8)
    for index in (0, 1, 15, 16, 30, 58, 59):
        light, is_bound = tfi(InMemory(spikes), index, 1.0, reach)
        low, high = max(0, index + 1 - reach), min(60, index + 1 + reach)
        for y, x in np.ndindex(4, 9):
            before = [t for t in range(low, index + 1) if spikes[t, y, x]]
            after = [t for t in range(index + 1, high) if spikes[t, y, x]]
            interval = (after[0] if after else high) - (before[-1] if before else low - 1)
            assert light[y, x] == pytest.approx(1 / interval)
            assert is_bound[y, x] == (not (before and after))


def test_the_bound_is_one_on_the_light_that_was_there():
    light = np.full((4, 4), 0.01)
    spikes = SpikeCamera(threshold=2.0).expose([light] * 90, np.random.default_rng(0))
    found = tfi(InMemory(spikes), 45, threshold=2.0)
    assert found.is_bound.all() and (found.light >= light - 1e-6).all()


def test_intervals_read_no_more_frames_than_they_need():
    spikes = np.ones((5000, 2, 8), np.uint8)
    source = InMemory(spikes)
    tfi(source, 2500)
    assert source.frames_read <= 2 * 16
    source = InMemory(0 * spikes)
    assert tfi(source, 2500).light.max() == pytest.approx(1 / 513)
    assert source.frames_read == 512


@pytest.mark.parametrize(("half_window", "least"), [(4, 20.9), (8, 26.0), (12, 28.2), (16, 28.5), (20, 27.9)])
def test_the_real_gopro_stream_shows_its_sharp_frame(half_window, least, shared_data):
    """Threshold 2 times the mean of 2 h + 1 frames around index 40, against the luma of the sharp frame."""
    stream, grey = gopro_pair(shared_data)
    light = mean_light(stream, 40 - half_window, 41 + half_window, threshold=2.0)
    assert psnr(to_grey8(light, white=1.0) / 255, grey) >= least
    assert psnr(light / 2.0, grey) < 13  # the scale is what matters


def test_the_real_gopro_stream_shows_its_sharp_frame_in_intervals(shared_data):
    stream, grey = gopro_pair(shared_data)
    light, is_bound = tfi(stream, 40, threshold=2.0)
    assert psnr(to_grey8(light, white=1.0) / 255, grey) >= 24.3
    assert is_bound.sum() == 5230


def test_refuses_windows_without_frames():
    with pytest.raises(ValueError, match="no spike frames"):
        tfp(np.zeros((0, 4, 1), np.uint8), width=8)
    source = InMemory(np.zeros((4, 2, 2), np.uint8))
    for start, stop in ((2, 2), (0, 5), (-1, 3)):
        with pytest.raises(ValueError, match="no spike frames in"):
            mean_light(source, start, stop)
    for index in (-1, 4):
        with pytest.raises(ValueError, match=f"frame {index} is not one of 4"):
            tfi(source, index)


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
