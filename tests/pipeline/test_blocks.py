import os
import resource
from fractions import Fraction

import numpy as np
import pytest

from pipeline import blocks
from pipeline.blocks import GreyFromSpikes, Images, PackedSpikes, SpikeFile, SpikeFiles, Table
from pipeline.dat import write_dat
from pipeline.errors import FormatError
from pipeline.frames import read_frame
from pipeline.images import write_png
from pipeline.spike_format import SpikeFormat

FORMAT = SpikeFormat(height=4, width=10, rate_hz=Fraction(1000), padding="frame")
LENGTHS = (3, 5, 2)
IMAGE = (slice(0, 3), slice(0, 4), slice(0, 6))
GREY = (slice(0, 3), slice(0, 4), slice(0, 10))


@pytest.fixture
def spikes():
    return np.random.default_rng(0).integers(0, 2, (sum(LENGTHS), 4, 10), np.uint8)


@pytest.fixture
def files(tmp_path, spikes):
    starts = np.cumsum((0, *LENGTHS))
    for k in range(3):
        write_dat(tmp_path / f"{k}.dat", spikes[starts[k] : starts[k + 1]], FORMAT)
    return SpikeFiles.measure([tmp_path / f"{k}.dat" for k in range(3)], FORMAT)


def read(source, region, at_once=1):
    """All values of a region of axis 0, asked for in chunks as a shard does, and the summary."""
    block = source.open(region)
    starts = range(region[0].start, region[0].stop, at_once)
    parts = [(slice(a, min(a + at_once, region[0].stop)), *region[1:]) for a in starts]
    return np.concatenate([block.chunk(part).copy() for part in parts]), block.summary()


def test_measures_every_file(files, tmp_path):
    assert files.lengths == LENGTHS and files.num_frames == 10
    assert files.files[1] == SpikeFile(tmp_path / "1.dat", 5) and len(files.files[1]) == 5
    (tmp_path / "1.dat").write_bytes(b"123456789")
    with pytest.raises(FormatError, match=r"1.dat"):
        SpikeFiles.measure(files.paths, FORMAT)


def test_files_are_read_as_one_stream(files, spikes):
    packed = np.packbits(spikes, axis=2, bitorder="little")
    for start in range(10):
        for stop in range(start + 1, 11):
            for at_once in (1, 3, 4, 10):
                region = (slice(start, stop), slice(0, 4), slice(0, 2))
                found, summary = read(PackedSpikes(files=files), region, at_once)
                np.testing.assert_array_equal(found, packed[start:stop])
                assert summary == {}


def test_only_the_files_of_a_span_are_opened(files, tmp_path):
    (tmp_path / "0.dat").unlink()
    assert [(stream.path.name, a, b) for stream, a, b in files.parts(4, 9)] == [
        ("1.dat", 1, 5),
        ("2.dat", 0, 1),
    ]


def test_a_file_that_changed_its_length_is_refused(files, spikes, tmp_path):
    write_dat(tmp_path / "1.dat", spikes[:4], FORMAT)
    with pytest.raises(FormatError, match=r"1.dat: has 4 spike frames, and had 5"):
        list(files.parts(0, 10))


def test_a_recording_of_many_files_needs_few_descriptors(tmp_path, spikes):
    paths = [tmp_path / f"{k}.dat" for k in range(120)]
    for path in paths:
        write_dat(path, spikes[:1], FORMAT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    try:
        files = SpikeFiles.measure(paths, FORMAT)
        found, _ = read(PackedSpikes(files=files), (slice(0, 120), slice(0, 4), slice(0, 2)), 7)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found == np.packbits(spikes[:1], axis=2, bitorder="little")).all()


def test_images_are_stacked_and_missing_ones_are_zeros(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (3, 3, 4, 6), np.uint8)
    for k in (0, 2):
        write_png(tmp_path / f"{k}.png", images[k])
    source = Images(paths=(tmp_path / "0.png", None, tmp_path / "2.png"), height=4, width=6)
    found, summary = read(source, (slice(0, 3), *IMAGE))
    np.testing.assert_array_equal(found[[0, 2]], images[[0, 2]])
    assert not found[1].any()
    assert len(set(summary["pixels_crc32c"])) == 3
    part, rest = read(source, (slice(2, 3), *IMAGE))
    np.testing.assert_array_equal(part[0], images[2])
    assert rest["pixels_crc32c"] == summary["pixels_crc32c"][2:]


def test_an_image_is_decoded_once_for_all_its_tiles(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6), np.uint8)
    for k in range(2):
        write_png(tmp_path / f"{k}.png", images[k])
    decoded = []
    monkeypatch.setattr(
        blocks, "read_frames", lambda places: (decoded.append(p) or read_frame(p) for p in places)
    )
    block = Images(paths=(tmp_path / "0.png", tmp_path / "1.png"), height=4, width=6).open(
        (slice(0, 2), *IMAGE)
    )
    for k in range(2):
        for left in (0, 4):
            tile = block.chunk((slice(k, k + 1), slice(0, 3), slice(0, 4), slice(left, min(left + 4, 6))))
            np.testing.assert_array_equal(tile[0], images[k][:, :, left : left + 4])
            assert len(decoded) == k + 1


def test_an_image_of_another_size_is_refused(tmp_path):
    write_png(tmp_path / "0.png", np.zeros((3, 4, 7), np.uint8))
    with pytest.raises(FormatError, match=r"0.png: 4x7 pixels"):
        read(Images(paths=(tmp_path / "0.png",), height=4, width=6), (slice(0, 1), *IMAGE))


def test_grey_is_the_mean_rate_times_the_threshold(files, spikes):
    source = GreyFromSpikes(files=files, spans=((0, 4), (2, 10)), threshold=0.5, scale=2)
    found, summary = read(source, (slice(0, 2), slice(0, 3), slice(0, 8), slice(0, 20)))
    assert found.shape == (2, 3, 8, 20) and len(summary["pixels_crc32c"]) == 2
    for image, (a, b) in zip(found, source.spans, strict=True):
        for y, x, channel in ((0, 0, 0), (3, 7, 1), (2, 9, 2)):
            grey = round(255 * 0.5 * float(spikes[a:b, y, x].mean()))
            assert (image[channel, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] == grey).all()


def test_grey_is_at_most_white(files):
    found, _ = read(
        GreyFromSpikes(files=files, spans=((0, 4),), threshold=100.0, scale=1), (slice(0, 1), *GREY)
    )
    assert set(np.unique(found)) <= {0, 255} and found.max() == 255


def test_tables_are_cut_by_region():
    found, _ = read(Table(values=((1, 2), (3, 4), (5, 6))), (slice(1, 3), slice(0, 2)))
    assert found.dtype == np.int64 and found.tolist() == [[3, 4], [5, 6]]
    found, _ = read(Table(values=(7, 8, 9)), (slice(0, 2),))
    assert found.tolist() == [7, 8]
