import os
import pickle
import resource
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

from pipeline.errors import FormatError, UsageError
from pipeline.images import MAX_PIXELS
from pipeline.video import VideoFrame, open_video

av = pytest.importorskip("av", reason="PyAV (the video extra) is not installed")

REORDERED = {"bf": "2"}
KINDS = {
    "mp4": ("clip.mp4", "mpeg4", "yuv420p", {}),
    "h264 with frames out of order": ("clip.mp4", "libx264", "yuv420p", REORDERED),
    "h264 open groups": ("clip.mkv", "libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=2"}),
    "h264 in avi": ("clip.avi", "libx264", "yuv420p", REORDERED),
    "hevc": ("clip.mov", "libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "vp9": ("clip.webm", "libvpx-vp9", "yuv420p", {}),
    "mjpeg": ("clip.avi", "mjpeg", "yuvj420p", {}),
    "raw": ("clip.avi", "rawvideo", "bgr24", {}),
    "mpeg2": ("clip.mpg", "mpeg2video", "yuv420p", REORDERED),
    "lossless": ("clip.mkv", "ffv1", "bgr0", {}),
}
NUM_FRAMES = 26


def moving(num_frames: int = NUM_FRAMES, height: int = 48, width: int = 64) -> np.ndarray:
    """(N, 3, H, W): every frame has another grey, and a bar that moves."""
    frames = np.zeros((num_frames, 3, height, width), np.uint8)
    for k, frame in enumerate(frames):
        frame[:] = 8 * k % 240 + 10
        frame[:, :, 2 * k % (width - 8) : 2 * k % (width - 8) + 8] = (k % 7) * 30
    return frames


def plainly(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24").transpose(2, 0, 1)
            for frame in container.decode(container.streams.video[0])
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_any_frames_are_those_of_a_decoding_from_the_start(tmp_path, write_video, kind):
    name, codec, pixels, options = KINDS[kind]
    path = write_video(tmp_path / name, moving(), codec, pixels, options=options)
    video, whole = open_video(path), plainly(path)
    assert len(video) == len(whole) == NUM_FRAMES and (video.height, video.width) == (48, 64)
    for start, stop in ((0, 26), (0, 1), (5, 9), (6, 7), (11, 19), (12, 13), (17, 26), (25, 26)):
        for found, expected in zip(video.read(start, stop), whole[start:stop], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_lossless_frames_are_exact(tmp_path, write_video):
    frames = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 24), np.uint8)
    video = open_video(write_video(tmp_path / "clip.mkv", frames))
    np.testing.assert_array_equal(np.stack(list(video.read(0, 9))), frames)
    assert video.rate_hz == Fraction(25) and video.encoding.startswith("ffv1 bgr0")


def test_decoding_starts_near_the_frames_that_are_wanted(tmp_path, write_video):
    path = write_video(tmp_path / "clip.mp4", moving(60), "libx264", "yuv420p", group=10)
    video = open_video(path)
    assert len([frame for frame, _ in video.entries if 5 < frame <= 53]) >= 5
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data[places[2][0] : places[2][0] + places[2][1]] = bytes(places[2][1])
    path.write_bytes(data)
    assert len(list(video.read(53, 57))) == 4  # the damage before them was not looked at
    with pytest.raises(FormatError, match=r"clip\.mp4: frame"):
        list(video.read(0, 9))


def test_an_index_that_is_not_exact_is_not_relied_on(tmp_path, write_video):
    path = write_video(tmp_path / "clip.mp4", moving(), "libx264", "yuv420p")
    video, whole = open_video(path), plainly(path)
    late = video.entries[-1][1]
    wrong = pickle.loads(pickle.dumps(video))
    object.__setattr__(wrong, "entries", tuple((frame, late) for frame, _ in video.entries))
    for k in range(NUM_FRAMES):
        np.testing.assert_array_equal(next(wrong.read(k, k + 1)), whole[k])


def test_stamps_mean_nothing(tmp_path, write_video):
    """A variable frame rate: the frames are counted."""
    frames = moving(8)
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        stream.time_base = Fraction(1, 1000)
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.transpose(1, 2, 0).copy(), format="rgb24")
            picture.pts, picture.time_base = 40 * k * k + 7, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    video = open_video(path)
    np.testing.assert_array_equal(np.stack(list(video.read(3, 8))), frames[3:])


@pytest.mark.parametrize(
    ("declared", "expected"), [(1, [250, 91, 41]), (2, [236, 77, 44]), (5, [236, 77, 44])]
)
def test_colours_follow_the_declared_matrix_and_bt601_without(tmp_path, declared, expected):
    """Y 120, Cb 90, Cr 200: R = 1.164 (Y - 16) + 1.596 (Cr - 128) in BT.601, 1.793 in BT.709, and so on."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace = declared
        frame = av.VideoFrame(16, 16, "yuv444p")
        frame.colorspace = declared
        for plane, value in zip(frame.planes, (120, 90, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = open_video(path)
    (found,) = video.read(0, 1)
    assert np.abs(found[:, 8, 8].astype(int) - expected).max() <= 1
    assert video.encoding.endswith({1: "BT.709", 2: "BT.601, not declared", 5: "BT.601"}[declared])


def test_refuses_to_read_beyond_the_end(tmp_path, write_video):
    video = open_video(write_video(tmp_path / "clip.mkv", moving(2)))
    with pytest.raises(FormatError, match=r"clip\.mkv: ends after 2 frames, frame 3 was wanted"):
        list(video.read(0, 4))


@pytest.mark.parametrize("kind", ["mp4", "h264 with frames out of order", "mjpeg", "lossless"])
def test_a_truncated_video_is_an_error_or_shorter(tmp_path, write_video, kind):
    name, codec, pixels, options = KINDS[kind]
    path = write_video(tmp_path / name, moving(), codec, pixels, options=options)
    opened, data = open_video(path), path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(FormatError, match=rf"{name}: (frame|ends after|not a readable)"):
        list(opened.read(0, NUM_FRAMES))
    try:
        assert len(open_video(path)) < NUM_FRAMES
    except FormatError as error:
        assert str(path) in error.problem


def test_blanked_frames_are_named(tmp_path, write_video):
    """A packet's bytes become zeros, as a bad sector leaves them, for every frame in turn."""
    path = write_video(tmp_path / "clip.mp4", moving(), "libx264", "yuv420p")
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for k, (place, size) in enumerate(packets):
        path.write_bytes(data[:place] + bytes(size) + data[place + size :])
        with pytest.raises(FormatError, match=r"clip\.mp4: (frame \d+|not a readable)"):
            list(open_video(path).read(0, NUM_FRAMES))
            pytest.fail(f"packet {k} of zeros was not noticed")


def test_what_is_no_video_is_refused(tmp_path, write_video):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, words in (
        ("text.mp4", "not a readable video"),
        ("empty.mp4", "empty"),
        ("pipe.mp4", "a named pipe"),
        ("absent.mp4", "no such file"),
    ):
        with pytest.raises(FormatError, match=rf"{name}: {words}"):
            open_video(tmp_path / name)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile 'real.mkv'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mkv\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_does_not_read_the_files_it_names(tmp_path, write_video, playlist):
    write_video(tmp_path / "real.mkv", moving(2))
    (tmp_path / "list.mp4").write_text(playlist)
    with pytest.raises(FormatError, match=r"list\.mp4: not a readable video"):
        open_video(tmp_path / "list.mp4")


def test_huge_frames_are_refused_by_their_header(tmp_path, write_video):
    path = write_video(tmp_path / "clip.avi", moving(2), "rawvideo", "bgr24")
    data = bytearray(path.read_bytes())
    place = data.find(b"strf") + 12
    assert struct.unpack_from("<ii", data, place) == (64, -48)
    struct.pack_into("<ii", data, place, 20000, 20000)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        FormatError, match=rf"clip\.avi: (not a readable|\d+x\d+ pixels, expected 1 to {MAX_PIXELS})"
    ):
        open_video(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_more_than_8_bits_are_refused_not_rounded(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p10le"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p10le")))
        container.mux(stream.encode())
    with pytest.raises(FormatError, match="more than 8 bits per channel"):
        list(open_video(path).read(0, 1))


def test_a_name_is_never_a_network_address(tmp_path, write_video, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = type(tmp_path)("concat:a|b.mkv")
    write_video(tmp_path / "x.mkv", moving(2)).rename(tmp_path / name)
    assert len(open_video(name)) == 2


def test_says_how_to_install_what_videos_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match="PyAV") as caught:
        open_video(tmp_path / "clip.mp4")
    assert "spike-deblur[video]" in caught.value.fix


def test_a_frame_names_its_file_and_number(tmp_path, write_video):
    video = open_video(write_video(tmp_path / "clip.mkv", moving(2)))
    assert str(VideoFrame(video, 1)) == f"{tmp_path}/clip.mkv frame 1"
