"""Animations come back from another reader with every level and every frame."""

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.previews.gif import delay_of, write_gif


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (16, 16), (64, 600), (600, 900)])
def test_every_pixel_of_every_frame_comes_back(height, width, tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (4, height, width), np.uint8)
    frames[2] = 7  # a flat frame, which compresses to almost nothing
    assert write_gif(tmp_path / "a.gif", iter(frames), fps=25) == 4
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (4, 0)
        for number, frame in enumerate(frames):
            image.seek(number)
            assert image.info["duration"] == 40
            assert np.array_equal(np.asarray(image.convert("L")), frame)


def test_one_frame_at_a_time_is_held(tmp_path: Path):
    made: list[weakref.ref[np.ndarray]] = []

    def frames():
        for level in range(50):
            frame = np.full((8, 8), level, np.uint8)
            made.append(weakref.ref(frame))
            assert sum(one() is not None for one in made) <= 2
            yield frame
            del frame

    assert write_gif(tmp_path / "a.gif", frames(), fps=10) == 50


@pytest.mark.parametrize(("fps", "delay"), [(50, 2), (30, 3), (20, 5), (1, 100), (0.1, 1000)])
def test_delays_are_hundredths_of_a_second(fps, delay):
    assert delay_of(fps) == delay


@pytest.mark.parametrize("fps", [0, -1, 51, float("nan"), 0.001])
def test_refuses_speeds_that_no_player_keeps(fps):
    with pytest.raises(ValueError, match="frames per second"):
        delay_of(fps)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8)],
        [np.zeros((3, 4), np.float32)],
        [np.zeros((3, 4, 4), np.uint8)],
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(frames, tmp_path: Path):
    with pytest.raises(ValueError):
        write_gif(tmp_path / "a.gif", frames, fps=10)
    assert list(tmp_path.iterdir()) == []
