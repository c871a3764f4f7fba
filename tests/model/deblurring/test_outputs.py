"""Folders that know how far they are, and videos."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from model.deblurring.outputs import FrameFolder, VideoFile, side_by_side_of
from pipeline.images import read_rgb
from pipeline.video import open_video

IMAGES = [list(pair) for pair in np.random.default_rng(0).integers(0, 256, (3, 2, 3, 8, 10), dtype=np.uint8)]
NAMES = [[f"{k}_a", f"{k}_b"] for k in range(3)]


def test_a_folder_knows_how_many_frames_are_there(tmp_path):
    with FrameFolder(tmp_path, NAMES, side_by_side=True) as folder:
        assert folder.done == 0
        folder.add(0, IMAGES[0], IMAGES[1])
        folder.add(1, IMAGES[1], IMAGES[2])
    (tmp_path / ".2_a.png.x.partial").write_text("left over")
    (tmp_path / "side_by_side" / "1_b.png").unlink()
    assert FrameFolder(tmp_path, NAMES, side_by_side=True).done == 1
    assert FrameFolder(tmp_path, NAMES, side_by_side=False).done == 2
    with FrameFolder(tmp_path, NAMES, side_by_side=False):
        assert not list(tmp_path.glob(".*"))
    np.testing.assert_array_equal(read_rgb(tmp_path / "1_b.png"), IMAGES[1][1])
    np.testing.assert_array_equal(read_rgb(tmp_path / "side_by_side" / "0_a.png"), IMAGES[1][0])


def test_videos_hold_the_instants_in_order_of_time(tmp_path):
    pytest.importorskip("av", reason="PyAV (the video extra) is not installed")
    path = tmp_path / "x.mkv"
    with VideoFile(path, Fraction(50)) as output:
        for k in range(3):
            output.add(k, IMAGES[k], [])
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(np.stack(list(open_video(path).read(0, 6))), np.concatenate(IMAGES))
    with VideoFile(tmp_path / "y.mkv", Fraction(50)) as output:
        output.add(0, IMAGES[0], [image[:, :4] for image in IMAGES[1]])
    beside = open_video(tmp_path / "y_side_by_side.mkv")
    assert (beside.height, beside.width, len(beside)) == (4, 10, 2)


def test_where_what_compares_is():
    assert side_by_side_of(Path("a/b.c.mp4")) == Path("a/b.c_side_by_side.mp4")
