import itertools
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dat import SpikeStream, open_spikes, pack_rows, unpack_rows, write_array, write_dat
from pipeline.errors import FormatError
from pipeline.images import read_rgb
from pipeline.spike_format import SpikeFormat

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside this checkout")


def random_spikes(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 2, (frames, height, width), dtype=np.uint8)


def plain_reader(data: bytes, fmt: SpikeFormat) -> np.ndarray:
    """Bit by bit, from the words of the format."""
    pixels, num_bits = fmt.height * fmt.width, 8 * len(data)
    stride = pixels if fmt.padding == "end" else -(-pixels // 8) * 8
    frames = []
    for start in range(0, num_bits - num_bits % stride, stride):
        frame = np.zeros((fmt.height, fmt.width), np.uint8)
        for y, x in itertools.product(range(fmt.height), range(fmt.width)):
            byte, bit = divmod(start + y * fmt.width + x, 8)
            shift = bit if fmt.bit_order == "lsb" else 7 - bit
            frame[y, x] = data[byte] >> shift & 1
        rows = frame[::-1] if fmt.flip == "vertical" else frame
        frames.append(np.concatenate([rows[:, a:b] for a, b in fmt.columns], axis=1))
    return np.array(frames)


SHAPES = [
    (4, 16, None, "none"),
    (4, 16, None, "end"),
    (4, 6, None, "none"),
    (3, 5, None, "frame"),
    (3, 5, None, "end"),
    (5, 9, (1, 8), "end"),
    (2, 24, (0, 16), "none"),
    (2, 24, (3, 19), "none"),
    (2, 32, ((0, 12), (16, 28)), "none"),
    (3, 7, ((0, 2), (4, 7)), "frame"),
]
FORMATS = [
    SpikeFormat(
        height=h, width=w, rate_hz=1000, bit_order=order, flip=flip, valid_columns=columns, padding=padding
    )
    for (h, w, columns, padding), order, flip in itertools.product(
        SHAPES, ["lsb", "msb"], ["vertical", "none"]
    )
]


@st.composite
def formats(draw: st.DrawFn) -> SpikeFormat:
    """Any layout of a small frame."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    edges = sorted(draw(st.sets(st.integers(0, width), min_size=2, max_size=4)))
    spans = tuple(zip(edges[::2], edges[1::2], strict=False))
    aligned, long = height * width % 8 == 0, height * width >= 8
    paddings = ["frame"] + ["none"] * aligned + ["end"] * long
    return SpikeFormat(
        height=height,
        width=width,
        rate_hz=1000,
        bit_order=draw(st.sampled_from(["lsb", "msb"])),
        flip=draw(st.sampled_from(["vertical", "none"])),
        valid_columns=draw(st.sampled_from([None, spans, spans[0]])),
        padding=draw(st.sampled_from(paddings)),
        axes=draw(st.sampled_from(["THW", "TWH", "HTW", "HWT", "WTH", "WHT"])),
    )


@settings(deadline=None, max_examples=150)
@given(fmt=formats(), frames=st.integers(1, 11), cut=st.tuples(st.integers(0, 11), st.integers(0, 11)))
def test_every_layout_of_every_geometry_goes_there_and_back(tmp_path_factory, fmt, frames, cut):
    folder = tmp_path_factory.mktemp("made")
    spikes = random_spikes(frames, fmt.height, fmt.valid_width)
    start, stop = sorted(min(edge, frames) for edge in cut)
    write_dat(folder / "a.dat", (spikes[i : i + 3] for i in range(0, frames, 3)), fmt)
    np.testing.assert_array_equal(plain_reader((folder / "a.dat").read_bytes(), fmt), spikes)
    write_array(folder / "a.npy", spikes, fmt)
    write_array(folder / "a.npz", spikes, fmt)
    np.save(folder / "bytes.npy", np.fromfile(folder / "a.dat", np.uint8))
    for name in ("a.dat", "a.npy", "a.npz", "bytes.npy"):
        stream = open_spikes(folder / name, fmt)
        np.testing.assert_array_equal(stream.read(0, frames), spikes)
        np.testing.assert_array_equal(stream.read(start, stop), spikes[start:stop])
        np.testing.assert_array_equal(stream.packed(start, stop), pack_rows(spikes[start:stop]))
        np.testing.assert_array_equal(stream.count(start, stop), spikes[start:stop].sum(axis=0))
    on_file = np.load(folder / "a.npy").transpose([fmt.axes.index(axis) for axis in "THW"])
    rows = on_file[:, ::-1] if fmt.flip == "vertical" else on_file
    np.testing.assert_array_equal(np.concatenate([rows[:, :, a:b] for a, b in fmt.columns], 2), spikes)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_layout_reads_what_the_words_say_and_goes_there_and_back(tmp_path, fmt):
    spikes = random_spikes(5, fmt.height, fmt.valid_width)
    path = tmp_path / "a.dat"
    write_dat(path, spikes, fmt)
    assert path.stat().st_size == -(-5 * fmt.frame_bits // 8)
    np.testing.assert_array_equal(plain_reader(path.read_bytes(), fmt), spikes)
    stream = open_spikes(path, fmt)
    assert len(stream) == 5
    assert stream.shape == spikes.shape
    np.testing.assert_array_equal(stream.read(0, 5), spikes)
    np.testing.assert_array_equal(stream.read(1, 3), spikes[1:3])
    np.testing.assert_array_equal(stream.packed(1, 4), pack_rows(spikes[1:4]))
    np.testing.assert_array_equal(stream.count(2, 5), spikes[2:5].sum(axis=0))


def test_the_first_pixel_of_the_last_row_is_the_lowest_bit_of_the_first_byte(tmp_path):
    (tmp_path / "a.dat").write_bytes(bytes([0b00000001, 0, 0, 0b10000000]))
    frame = open_spikes(tmp_path / "a.dat", SpikeFormat(height=2, width=16, rate_hz=1)).read(0, 1)[0]
    assert np.argwhere(frame).tolist() == [[0, 15], [1, 0]]


def test_packed_rows_are_a_view_of_the_file_where_it_holds_such_rows(tmp_path):
    for columns in (None, (8, 24)):
        fmt = SpikeFormat(height=3, width=32, rate_hz=1, valid_columns=columns)
        write_dat(tmp_path / "a.dat", random_spikes(4, 3, fmt.valid_width), fmt)
        packed = open_spikes(tmp_path / "a.dat", fmt).packed(0, 4)
        assert packed.base is not None
        assert not packed.flags.writeable


def test_rows_that_end_inside_a_byte_are_filled_with_zeros():
    packed = pack_rows(np.ones((2, 3, 11), np.uint8))
    assert packed.shape == (2, 3, 2)
    assert packed[0, 0].tolist() == [0b11111111, 0b00000111]
    np.testing.assert_array_equal(unpack_rows(packed, 11), np.ones((2, 3, 11)))
    with pytest.raises(ValueError, match="2 bytes to a row do not hold 17 pixels"):
        unpack_rows(packed, 17)


def test_refuses_a_size_that_is_no_whole_number_of_frames(tmp_path):
    path = tmp_path / "000226.dat"
    path.write_bytes(bytes(2 * 28800 + 1))
    with pytest.raises(FormatError) as caught:
        open_spikes(path, SpikeFormat(height=360, width=640, rate_hz=1920))
    assert caught.value.problem == (
        f"{path}: 57601 bytes is not a whole number of 28800-byte frames (360x640);"
        " check the manifest's height and width"
    )


@pytest.mark.parametrize("span", [(-1, 2), (0, 6), (3, 2), (6, 6)])
@pytest.mark.parametrize("method", ["read", "packed", "count"])
def test_refuses_frames_outside_the_recording(tmp_path, span, method):
    fmt = SpikeFormat(height=2, width=8, rate_hz=1)
    write_dat(tmp_path / "a.dat", random_spikes(5, 2, 8), fmt)
    with pytest.raises(ValueError, match="do not lie in a recording of 5"):
        getattr(open_spikes(tmp_path / "a.dat", fmt), method)(*span)


def test_refuses_by_name_what_is_no_spike_file(tmp_path):
    fmt = SpikeFormat(height=2, width=8, rate_hz=1)
    (tmp_path / "folder.dat").mkdir()
    os.mkfifo(tmp_path / "pipe.dat")
    (tmp_path / "empty.dat").touch()
    (tmp_path / "a.raw").write_bytes(bytes(2))
    for name, words in {
        "absent.dat": "no such file",
        "folder.dat": "a directory",
        "pipe.dat": "a named pipe",
        "empty.dat": "empty",
        "a.raw": ".raw is not a spike file",
    }.items():
        with pytest.raises(FormatError, match=words) as caught:
            open_spikes(tmp_path / name, fmt)
        assert name in str(caught.value)


@pytest.mark.parametrize("order", ["lsb", "msb"])
def test_bits_that_fill_up_are_zero_or_the_file_is_refused(tmp_path, order):
    frame = SpikeFormat(height=3, width=5, rate_hz=1, padding="frame", bit_order=order)
    write_dat(tmp_path / "a.dat", random_spikes(6, 3, 5), frame)
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[2 * 4 + 1] |= 0x80 if order == "lsb" else 0x01
    (tmp_path / "a.dat").write_bytes(data)
    with pytest.raises(FormatError, match="fill up spike frame 4 are not zero"):
        open_spikes(tmp_path / "a.dat", frame).read(3, 6)
    assert open_spikes(tmp_path / "a.dat", frame).read(0, 4).shape == (4, 3, 5)
    end = SpikeFormat(height=3, width=5, rate_hz=1, padding="end", bit_order=order)
    (tmp_path / "b.dat").write_bytes(bytes([0, 0x80 if order == "lsb" else 0x01]))
    with pytest.raises(FormatError, match="fill up the end of the file are not zero"):
        open_spikes(tmp_path / "b.dat", end)


def test_a_declared_number_of_frames_is_held_to(tmp_path):
    fmt = SpikeFormat(height=2, width=8, rate_hz=1)
    write_dat(tmp_path / "a.dat", random_spikes(5, 2, 8), fmt)
    write_array(tmp_path / "a.npy", random_spikes(5, 2, 8), fmt)
    for name in ("a.dat", "a.npy"):
        assert len(open_spikes(tmp_path / name, replace(fmt, num_frames=5))) == 5
        with pytest.raises(FormatError, match="holds 5 spike frames, and 6 were declared"):
            open_spikes(tmp_path / name, replace(fmt, num_frames=6))
    with pytest.raises(ValueError, match="5 frames to write, but the format declares 6"):
        write_dat(tmp_path / "b.dat", random_spikes(5, 2, 8), replace(fmt, num_frames=6))
    assert not (tmp_path / "b.dat").exists()


@pytest.mark.parametrize("header", [b"% Data file containing CD events.\n% Version 2\n", b"#!AER-DAT2.0\r\n"])
def test_refuses_the_files_of_event_cameras(tmp_path, header):
    (tmp_path / "events.dat").write_bytes(header.ljust(80, b"\0"))
    with pytest.raises(FormatError, match="event camera"):
        open_spikes(tmp_path / "events.dat", SpikeFormat(height=2, width=8, rate_hz=1))


def test_a_percent_sign_alone_does_not_make_an_event_file(tmp_path):
    (tmp_path / "a.dat").write_bytes(b"%" + bytes(range(31)))
    assert len(open_spikes(tmp_path / "a.dat", SpikeFormat(height=2, width=8, rate_hz=1))) == 16


def test_writes_blocks_as_one_recording(tmp_path):
    fmt = SpikeFormat(height=2, width=8, rate_hz=1)
    spikes = random_spikes(7, 2, 8)
    write_dat(tmp_path / "whole.dat", spikes, fmt)
    write_dat(tmp_path / "blocks.dat", (spikes[i : i + 3] for i in range(0, 7, 3)), fmt)
    assert (tmp_path / "whole.dat").read_bytes() == (tmp_path / "blocks.dat").read_bytes()


@pytest.mark.parametrize(
    "spikes",
    [np.zeros((2, 3, 8), np.uint8), np.full((1, 2, 8), 2), np.full((1, 2, 8), -1), np.zeros((0, 2, 8))],
)
def test_a_writer_that_fails_leaves_nothing(tmp_path, spikes):
    with pytest.raises(ValueError):
        write_dat(tmp_path / "a.dat", spikes, SpikeFormat(height=2, width=8, rate_hz=1))
    assert list(tmp_path.iterdir()) == []


def test_reads_arrays_in_both_axis_orders(tmp_path):
    spikes = random_spikes(6, 3, 5)
    np.save(tmp_path / "a.npy", spikes)
    np.savez_compressed(tmp_path / "a.npz", spikes.transpose(1, 2, 0))
    np.savez(tmp_path / "b.npz", spk=spikes.astype(bool), label=np.arange(3))
    fmt = {"height": 3, "width": 5, "rate_hz": 1, "flip": "none"}
    for stream in (
        open_spikes(tmp_path / "a.npy", SpikeFormat(**fmt)),
        open_spikes(tmp_path / "a.npz", SpikeFormat(**fmt, axes="HWT")),
        open_spikes(tmp_path / "b.npz", SpikeFormat(**fmt, key="spk")),
    ):
        np.testing.assert_array_equal(stream.read(0, 6), spikes)
        np.testing.assert_array_equal(stream.packed(2, 4), pack_rows(spikes[2:4]))
        assert stream.read(0, 6).dtype == np.uint8


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3), np.uint8), "expected three axes"),
        (np.zeros(15, np.bool_), "expected three axes"),
        (np.zeros(15, np.uint8), "do not fill whole bytes"),
        (np.zeros((2, 3, 5), np.float32), "float32"),
        (np.zeros((2, 5, 3), np.uint8), "expected 3x5"),
        (np.zeros((0, 3, 5), np.uint8), "0 frames"),
    ],
)
def test_refuses_arrays_that_are_not_the_declared_frames(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FormatError, match=words):
        open_spikes(tmp_path / "a.npy", SpikeFormat(height=3, width=5, rate_hz=1))


def test_refuses_array_values_other_than_zero_and_one(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 3, 5), 255, np.uint8))
    with pytest.raises(FormatError, match="value 255"):
        open_spikes(tmp_path / "a.npy", SpikeFormat(height=3, width=5, rate_hz=1)).read(0, 1)


def test_a_stream_travels_to_another_process_by_its_path(tmp_path):
    fmt = SpikeFormat(height=64, width=64, rate_hz=1)
    spikes = random_spikes(100, 64, 64)
    write_dat(tmp_path / "a.dat", spikes, fmt)
    sent = pickle.dumps(open_spikes(tmp_path / "a.dat", fmt))
    assert len(sent) < 1000
    arrived = pickle.loads(sent)
    assert isinstance(arrived, SpikeStream)
    np.testing.assert_array_equal(arrived.read(0, 100), spikes)


@needs_shared
def test_the_real_gopro_file_shows_its_sharp_frame_upright():
    stream = open_spikes(
        SHARED / "gopro_spike_pair/000226.dat", SpikeFormat(height=360, width=640, rate_hz=1920)
    )
    sharp = read_rgb(SHARED / "gopro_spike_pair/000226_sharp.png").mean(axis=0)
    grey = sharp.reshape(360, 2, 640, 2).mean(axis=(1, 3))
    counts = stream.count(40 - 16, 40 + 17)
    assert stream.shape == (88, 360, 640)
    assert np.corrcoef(grey.ravel(), counts.ravel())[0, 1] > 0.98
    assert np.corrcoef(grey[::-1].ravel(), counts.ravel())[0, 1] < 0.5
