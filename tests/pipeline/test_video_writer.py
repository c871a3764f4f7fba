"""Videos that appear whole, exact or for players."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.video import open_video
from pipeline.video_writer import encoding_of, write_video

av = pytest.importorskip("av", reason="PyAV (the video extra) is not installed")


def ramps(height: int, width: int, count: int = 5) -> np.ndarray:
    """Smooth coloured pictures, each a little brighter than the one before."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [40 + 2 * rows, 60 + 2 * columns, 90 + rows + columns]
    return np.stack([np.stack(planes) + 5 * k for k in range(count)]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_an_exact_video_comes_back_bit_for_bit(tmp_path, ending):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 17, 23), dtype=np.uint8)
    with write_video(tmp_path / f"x{ending}", 17, 23, Fraction(30000, 1001)) as add:
        for image in images:
            add(image)
    video = open_video(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(np.stack(list(video.read(0, 4))), images)
    assert abs(video.rate_hz - Fraction(30000, 1001)) < Fraction(1, 100)


def test_a_video_for_players_looks_the_same_also_at_odd_sizes(tmp_path):
    images = ramps(33, 47)
    with write_video(tmp_path / "x.mp4", 33, 47, Fraction(25)) as add:
        for image in images:
            add(image)
    video = open_video(tmp_path / "x.mp4")
    assert (video.height, video.width, len(video)) == (34, 48, 5)
    assert "BT.709" in video.encoding
    found = np.stack(list(video.read(0, 5)))[:, :, :33, :47]
    assert np.abs(found.astype(int) - images).mean() < 1.5


def test_nothing_is_there_until_it_is_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_video(tmp_path / "x.mkv", 8, 8, Fraction(25)) as add:
        add(np.zeros((3, 8, 8), np.uint8))
        assert not (tmp_path / "x.mkv").exists()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_refuses_frames_of_another_size(tmp_path):
    with (
        pytest.raises(ValueError, match="expected"),
        write_video(tmp_path / "x.mkv", 8, 8, Fraction(25)) as add,
    ):
        add(np.zeros((3, 8, 9), np.uint8))


def test_other_names(tmp_path):
    assert encoding_of(tmp_path / "folder") is None
    with pytest.raises(UsageError, match=r"not written as \.webm"):
        encoding_of(tmp_path / "x.webm")
