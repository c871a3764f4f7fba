"""Finding and reading a user's frames."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from pipeline.errors import FormatError, UsageError
from pipeline.images import write_png
from pipeline.simulation.frame_sources import find_sources, open_video


def image(value: int) -> np.ndarray:
    return np.full((3, 16, 24), value, np.uint8)


def write_video(path, values) -> None:
    av = pytest.importorskip("av", reason="PyAV (the video extra) is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for value in values:
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_folder_of_images_is_one_source_in_the_order_of_names(tmp_path):
    for name, value in (("b.png", 2), ("a.png", 1), (".hidden.png", 9), ("c.txt", 0)):
        write_png(tmp_path / name, image(value))
    (source,) = find_sources(tmp_path)
    assert len(source) == 2 and source.rate_hz is None
    assert [int(frame[0, 0, 0]) for frame in source.read(0, 2)] == [1, 2]
    assert [int(frame[0, 0, 0]) for frame in source.read(1, 2)] == [2]


def test_a_folder_of_folders_is_many_sources(tmp_path):
    for folder in ("two", "one"):
        write_png(tmp_path / folder / "0.png", image(1))
    (tmp_path / "empty").mkdir()
    assert [source.path.name for source in find_sources(tmp_path)] == ["one", "two"]


def test_one_image_is_a_source(tmp_path):
    write_png(tmp_path / "a.png", image(7))
    (source,) = find_sources(tmp_path / "a.png")
    assert [frame.shape for frame in source.read(0, 1)] == [(3, 16, 24)]


def test_a_video_is_counted_and_read_from_anywhere(tmp_path):
    values = [20, 60, 100, 140, 180, 220]
    write_video(tmp_path / "clip.mp4", values)
    (source,) = find_sources(tmp_path)
    assert len(source) == 6 and source.rate_hz == Fraction(25)
    frames = list(source.read(2, 5))
    assert frames[0].shape == (3, 32, 48)
    assert [frame.mean() for frame in frames] == pytest.approx(values[2:5], abs=4)


def test_refuses_to_read_beyond_the_end_of_a_video(tmp_path):
    write_video(tmp_path / "clip.mp4", [20, 60])
    with pytest.raises(FormatError, match="ends after 2 frames, frame 3 was wanted"):
        list(open_video(tmp_path / "clip.mp4").read(0, 4))


def test_refuses_a_damaged_video_by_name(tmp_path):
    pytest.importorskip("av", reason="PyAV (the video extra) is not installed")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(FormatError, match=r"clip\.mp4: not a readable video"):
        find_sources(tmp_path)


def test_says_how_to_install_what_videos_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="PyAV") as caught:
        find_sources(tmp_path / "clip.mp4")
    assert "spike-deblur[video]" in caught.value.fix


def test_refuses_what_holds_no_frames(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        find_sources(tmp_path / "missing")
    with pytest.raises(UsageError, match="no images or videos"):
        find_sources(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match="neither an image nor a video"):
        find_sources(tmp_path / "a.txt")


def test_refuses_images_beside_folders(tmp_path):
    write_png(tmp_path / "a.png", image(1))
    write_png(tmp_path / "folder" / "b.png", image(1))
    with pytest.raises(UsageError, match="1 images beside 0 videos and 1 folders"):
        find_sources(tmp_path)
