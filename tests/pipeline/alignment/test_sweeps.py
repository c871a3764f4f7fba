"""A sweep equals regressing on every moved window on its own."""

import numpy as np
import pytest

from pipeline.alignment.sweeps import Instant, Recorded, sweep_blurry, sweep_sharp
from pipeline.dat import pack_rows

T, H, W = 90, 20, 28


@pytest.fixture(scope="module")
def spikes():
    rng = np.random.default_rng(0)
    rate = np.add.outer(np.linspace(0.1, 0.5, H), np.linspace(0, 0.4, W))
    moving = np.stack([np.roll(rate, t // 4, axis=1) for t in range(T)])
    return (rng.random((T, H, W)) < moving).astype(np.uint8)


@pytest.fixture(scope="module")
def recorded(spikes):
    return Recorded(pack_rows(spikes), W, 2)


@pytest.fixture(scope="module")
def image(spikes):
    """Linear light of an exposure three spike frames after [20, 51), with noise."""
    grey = 200 * spikes[23:54].mean(axis=0).repeat(2, axis=0).repeat(2, axis=1)
    noise = np.random.default_rng(1).integers(0, 40, (3, 2 * H, 2 * W))
    return (grey + noise).astype(np.uint8)


def plain_error(spikes, image, start, stop):
    """Residual sum of squares of the image on the counts of [start, stop)."""
    grey = image.reshape(3, H, 2, W, 2).mean(axis=(0, 2, 4)).ravel() / 255
    counts = spikes[start:stop].sum(axis=0, dtype=float).ravel()
    return ((grey - np.polyval(np.polyfit(counts, grey, 1), counts)) ** 2).sum()


def test_moved_counts_equal_plain_ones(recorded, spikes):
    found = [counts.copy() for counts in recorded.moved_counts(20, 51, range(-7, 9))]
    for d, counts in zip(range(-7, 9), found, strict=True):
        np.testing.assert_array_equal(counts, spikes[20 + d : 51 + d].sum(axis=0))


def test_long_windows_are_counted_past_what_a_byte_holds():
    ones = Recorded(pack_rows(np.ones((600, 2, 3), np.uint8)), 3, 1)
    assert (ones.count(10, 590) == 580).all()


def test_a_curve_is_the_plain_error_at_every_offset(recorded, spikes, image):
    curves = sweep_blurry(recorded, image, (20, 51), 6)
    assert curves.offsets.tolist() == list(range(-6, 7)) and curves.residuals.shape == (1, 64, 13)
    total = curves.residuals.sum(axis=(0, 1))
    plain = np.array([plain_error(spikes, image, 20 + d, 51 + d) for d in range(-6, 7)])
    assert total / total.min() == pytest.approx(plain / plain.min(), rel=1e-9)
    assert total.argmin() == 6 + 3
    assert total.min() == pytest.approx(H * W)


def test_a_sweep_stays_in_the_recording(recorded, image):
    assert sweep_blurry(recorded, image, (2, 86), 6).offsets.tolist() == [-2, -1, 0, 1, 2, 3, 4]
    assert sweep_blurry(recorded, image, (0, T), 6) is None


def test_the_window_around_an_instant_is_symmetric():
    assert Instant(index=40, at_beginning=False).window(8) == (32, 49)
    assert Instant(index=40, at_beginning=True).window(8) == (32, 48)


@pytest.mark.parametrize(
    ("index", "widths", "first"), [(45, 3, -12), (13, 2, -5), (6, None, 0), (85, None, 0)]
)
def test_windows_around_an_instant_are_as_wide_as_the_recording_allows(recorded, image, index, widths, first):
    curves = sweep_sharp(recorded, image, Instant(index=index, at_beginning=False), 12)
    if widths is None:
        assert curves is None
    else:
        assert len(curves.residuals) == widths and curves.offsets[0] == first


def test_a_flat_image_has_no_curve(recorded):
    assert sweep_blurry(recorded, np.full((3, 2 * H, 2 * W), 7, np.uint8), (20, 51), 6) is None


def test_clipped_pixels_are_left_out(recorded, image):
    other = image.copy()
    other[:, :8, :8] = 255
    curves = sweep_blurry(recorded, other, (20, 51), 4)
    assert curves.residuals.sum(axis=(0, 1)).min() == pytest.approx(H * W - 16)
