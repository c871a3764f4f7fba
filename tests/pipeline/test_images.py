import os
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import FormatError
from pipeline.images import image_size, read_rgb, write_png

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)


def test_png_goes_there_and_back(tmp_path):
    write_png(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture())
    assert image_size(tmp_path / "a.png") == (5, 7)


def test_grey_becomes_three_equal_channels(tmp_path):
    write_png(tmp_path / "grey.png", picture()[0])
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.stack([picture()[0]] * 3))


@pytest.mark.parametrize("suffix", ["bmp", "tif", "png"])
def test_reads_lossless_formats_exactly(tmp_path, suffix):
    Image.fromarray(picture().transpose(1, 2, 0)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{suffix}"), picture())


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_reads_jpeg_within_its_own_error(tmp_path, name):
    y, x = np.mgrid[:40, :56]
    smooth = np.stack([128 + 90 * np.sin(y / 9), 3.0 * x + 20, 128 + 60 * np.cos((x + y) / 11)]).astype(
        np.uint8
    )
    Image.fromarray(smooth.transpose(1, 2, 0)).save(tmp_path / name, quality=95)
    error = np.abs(read_rgb(tmp_path / name).astype(int) - smooth)
    assert error.mean() < 2 and error.max() < 16


def test_reads_jpeg_and_palette_images(tmp_path):
    flat = Image.new("RGB", (8, 8), (200, 30, 60))
    flat.save(tmp_path / "a.jpg", quality=95)
    flat.quantize(4).save(tmp_path / "palette.png")
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - [[[200]], [[30]], [[60]]]).max() <= 3
    assert read_rgb(tmp_path / "palette.png")[:, 0, 0].tolist() == [200, 30, 60]


def test_an_alpha_channel_is_dropped_only_where_it_hides_nothing(tmp_path):
    Image.new("RGBA", (2, 2), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (2, 2), (1, 2, 3, 254)).save(tmp_path / "clear.png")
    assert read_rgb(tmp_path / "opaque.png")[:, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(FormatError, match="transparent"):
        read_rgb(tmp_path / "clear.png")


def sixteen_bit_rgb_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(2 * 13))), chunk(b"IEND", b"")]
    )


def test_refuses_more_than_8_bits_per_channel(tmp_path):
    Image.fromarray(np.full((2, 2), 60000, np.uint16)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "colour.png").write_bytes(sixteen_bit_rgb_png())
    for name in ("grey.png", "float.tif", "colour.png"):
        with pytest.raises(FormatError, match="more than 8 bits"):
            read_rgb(tmp_path / name)


def test_refuses_other_colour_modes_formats_and_pages(tmp_path):
    Image.new("CMYK", (2, 2)).save(tmp_path / "cmyk.jpg")
    Image.new("RGB", (2, 2)).save(tmp_path / "animated.gif")
    Image.new("RGB", (2, 2)).save(
        tmp_path / "pages.tif", save_all=True, append_images=[Image.new("RGB", (2, 2))]
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 4)).save(tmp_path / "turned.jpg", exif=exif)
    for name, words in {
        "cmyk.jpg": "CMYK",
        "animated.gif": "not a readable",
        "pages.tif": "2 pages or more",
        "turned.jpg": "orientation 6",
    }.items():
        with pytest.raises(FormatError, match=words):
            read_rgb(tmp_path / name)


def test_refuses_too_many_pixels_before_decoding_them(tmp_path):
    bomb = bytearray(sixteen_bit_rgb_png())
    bomb[16:24] = struct.pack(">II", 60000, 60000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (tmp_path / "bomb.png").write_bytes(bomb)
    write_png(tmp_path / "a.png", picture())
    with pytest.raises(FormatError):
        read_rgb(tmp_path / "bomb.png")
    with pytest.raises(FormatError, match="5x7 is more than 34 pixels"):
        read_rgb(tmp_path / "a.png", max_pixels=34)
    assert read_rgb(tmp_path / "a.png", max_pixels=35).shape == (3, 5, 7)


def test_refuses_damaged_files_and_what_is_no_file(tmp_path):
    rng = np.random.default_rng(1)
    write_png(tmp_path / "good.png", rng.integers(0, 256, (3, 64, 64), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:5000])
    (tmp_path / "text.png").write_text("not a picture")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("cut.png", "text.png", "pipe.png", "absent.png", "."):
        with pytest.raises(FormatError) as caught:
            read_rgb(tmp_path / name)
        assert name in caught.value.problem or name == "."


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_raise_our_error_or_none(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / ("a.png" if seed % 2 else "a.tif")
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 4):
        data[place] = rng.integers(0, 256)
    path.write_bytes(data)
    try:
        assert read_rgb(path).dtype == np.uint8
    except FormatError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)]
)
def test_refuses_to_write_other_shapes_and_types(tmp_path, image):
    with pytest.raises(ValueError, match="expected"):
        write_png(tmp_path / "a.png", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside this checkout")
def test_reads_the_real_sharp_frames():
    assert read_rgb(SHARED / "gopro_spike_pair/000226_sharp.png").shape == (3, 720, 1280)
    grey = read_rgb(SHARED / "sreds_t301_250x400/203_part1_key_id151.png")
    assert grey.shape == (3, 250, 400)
    assert (grey == grey[:1]).all()


def test_a_chunk_takes_no_more_memory_than_the_file_has_bytes(tmp_path):
    """Pillow reads as many bytes as a chunk says it has, and Python sets that memory aside at once."""
    write_png(tmp_path / "a.png", picture())
    data = (tmp_path / "a.png").read_bytes()
    place = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:place] + struct.pack(">I", (1 << 31) - 1) + data[place + 4 :])
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 28), before[1]))
    try:
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_pages_are_not_counted_to_their_end(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "one.tif")
    first = (tmp_path / "one.tif").read_bytes()
    start = struct.unpack_from("<I", first, 4)[0]
    end = start + 2 + 12 * struct.unpack_from("<H", first, start)[0]
    places = [len(first) + (end - start + 4) * (k + 1) for k in range(9000)]
    pages = b"".join(first[start:end] + struct.pack("<I", place) for place in places)
    (tmp_path / "many.tif").write_bytes(first[:4] + struct.pack("<I", len(first)) + first[8:] + pages)
    started = time.process_time()
    with pytest.raises(FormatError, match="2 pages or more"):
        image_size(tmp_path / "many.tif")
    assert time.process_time() - started < 0.5
