"""Frames that are decoded once, and forgotten, however they are cut."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import frame_window
from pipeline.frame_window import FrameWindow
from pipeline.images import write_png

HEIGHT, WIDTH, COUNT = 6, 10, 9


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def window(images, tmp_path, monkeypatch):
    """The frames as files, and the names of those that were read."""
    places = [tmp_path / f"{k}.png" for k in range(COUNT)]
    for place, image in zip(places, images, strict=True):
        write_png(place, image)
    made = FrameWindow(places, HEIGHT, WIDTH)
    made.read = []

    def note(places):
        for place in places:
            made.read.append(int(Path(place).stem))
            yield from read(places=[place])

    read = frame_window.read_frames
    monkeypatch.setattr(frame_window, "read_frames", note)
    return made


def test_gives_what_an_array_would(window, images):
    assert window.shape == images.shape and window.dtype == np.uint8
    np.testing.assert_array_equal(window[2:5, :, 1:4, 3:9], images[2:5, :, 1:4, 3:9])
    np.testing.assert_array_equal(window[4], images[4])
    np.testing.assert_array_equal(window[:], images)


def test_clips_that_overlap_are_decoded_once_and_forgotten(window, images):
    for start in range(0, COUNT - 3, 2):
        for columns in (slice(0, 5), slice(5, 10)):  # tiles of one clip
            np.testing.assert_array_equal(
                window[start : start + 4, :, :, columns], images[start : start + 4, :, :, columns]
            )
        assert len(window._kept) <= 4
        np.testing.assert_array_equal(window[start + 1], images[start + 1])  # a consumer of the clip
    assert window.read == list(range(8))


def test_going_back_decodes_again(window, images):
    np.testing.assert_array_equal(window[5:7], images[5:7])
    np.testing.assert_array_equal(window[1:3], images[1:3])
    np.testing.assert_array_equal(window[2:6], images[2:6])
    assert window.read == [5, 6, 1, 2, 3, 4, 5]
