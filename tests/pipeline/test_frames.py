import numpy as np
import pytest

from pipeline.frames import file_of, frame_size, read_frame, read_frames
from pipeline.images import write_png
from pipeline.video import VideoFrame, open_video


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (12, 3, 16, 24), np.uint8)


@pytest.fixture
def places(tmp_path, write_video, pictures):
    """Frame k of the video shows picture k, and so does image k."""
    write_video(tmp_path / "clip.mkv", pictures)
    for k, picture in enumerate(pictures):
        write_png(tmp_path / f"{k}.png", picture)
    video = open_video(tmp_path / "clip.mkv")
    return [VideoFrame(video, k) for k in range(12)], [tmp_path / f"{k}.png" for k in range(12)]


def test_frames_come_in_the_order_asked_for_from_wherever_they_are(places, pictures):
    video, files = places
    order = [3, 4, 5, 2, 2, 9, 11, 0, 1]
    mixed = [files[k] if k in (4, 9) else video[k] for k in order]
    np.testing.assert_array_equal(np.stack(list(read_frames(mixed))), pictures[order])
    np.testing.assert_array_equal(read_frame(video[7]), pictures[7])
    assert list(read_frames([])) == []


def test_a_run_of_a_video_is_decoded_once(places, monkeypatch):
    video, _ = places
    calls = []
    read = type(video[0].video).read

    def count(self, start, stop):
        calls.append((start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(type(video[0].video), "read", count)
    assert len(list(read_frames([*video[2:7], *video[9:11]]))) == 7
    assert calls == [(2, 7), (9, 11)]


def test_a_frame_knows_its_file_and_size(places, tmp_path):
    video, files = places
    assert (file_of(video[3]), file_of(files[3])) == (tmp_path / "clip.mkv", files[3])
    assert frame_size(video[3]) == frame_size(files[3]) == (16, 24)
