import itertools
import json

import numpy as np
import pytest
import zarr

from pipeline.storage.shards import (
    TARGET_SHARD_BYTES,
    ArrayLayout,
    compressor,
    crc32c_bytes,
    frames_layout,
    shard_key,
    spikes_layout,
    table_layout,
    tile_side,
    write_chunks,
    write_shard,
)


def write_array(path, layout, values):
    receipts = [write_shard(path, layout, s, values[layout.region(s)]) for s in layout.shards()]
    (path / "zarr.json").write_text(json.dumps(layout.metadata({})))
    return receipts


def small(**changes) -> ArrayLayout:
    values = {"shape": (5, 3, 7), "shard": (4, 3, 8), "chunk": (2, 3, 4), "names": ("a", "b", "c")}
    return ArrayLayout(**(values | changes))


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_zarr_reads_what_was_written(tmp_path, codec):
    layout = small(codec=codec)
    values = np.random.default_rng(0).integers(0, 9, layout.shape, np.uint8)
    write_array(tmp_path / "array", layout, values)
    found = zarr.open_array(tmp_path / "array", mode="r")
    assert found.shape == (5, 3, 7) and found.shards == (4, 3, 8) and found.chunks == (2, 3, 4)
    assert found.metadata.dimension_names == ("a", "b", "c")
    np.testing.assert_array_equal(found[:], values)
    np.testing.assert_array_equal(found[4, 1, 5:], values[4, 1, 5:])


def test_zarr_reads_signed_tables(tmp_path):
    values = np.array([[-1, 2**62], [3, -(2**62)]])
    layout = table_layout(values.shape, ("frame", "edge"))
    write_array(tmp_path / "table", layout, values)
    found = zarr.open_array(tmp_path / "table", mode="r")
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found[:], values)


def test_the_bytes_of_a_shard_by_hand(tmp_path):
    """Two chunks of two bytes; the second shard position on the axis is half empty."""
    layout = ArrayLayout(shape=(3,), shard=(4,), chunk=(2,), names=("x",))
    receipt = write_shard(tmp_path, layout, (0,), np.array([7, 8, 9], np.uint8))
    chunks = [b"\x07\x08", b"\x09\x00"]
    sums = [crc32c_bytes(chunk) for chunk in chunks]
    index = np.array([[0, 6], [6, 6]], "<u8").tobytes()
    seal = crc32c_bytes(sums[0] + sums[1] + index)
    expected = chunks[0] + sums[0] + chunks[1] + sums[1] + seal + index + crc32c_bytes(index)
    assert (tmp_path / "c/0").read_bytes() == expected
    assert (receipt.key, receipt.size) == ("c/0", len(expected))
    assert receipt.seal.to_bytes(4, "little") == seal


def test_crc32c_of_the_standard_example():
    assert crc32c_bytes(b"123456789") == (0xE3069283).to_bytes(4, "little")


def test_the_seal_tells_shards_of_other_values_apart(tmp_path):
    layout = small()
    values = np.random.default_rng(0).integers(0, 9, layout.shape, np.uint8)
    other = values.copy()
    other[0, 0, 0] += 1
    region = layout.region((0, 0, 0))
    seals = [
        write_shard(tmp_path / n, layout, (0, 0, 0), v[region]).seal for n, v in [("a", values), ("b", other)]
    ]
    assert seals[0] != seals[1]


def test_refuses_a_block_of_another_shape_or_type(tmp_path):
    with pytest.raises(ValueError, match=r"block of uint8 \(4, 3, 8\), expected uint8 \(4, 3, 7\)"):
        write_shard(tmp_path, small(), (0, 0, 0), np.zeros((4, 3, 8), np.uint8))
    with pytest.raises(ValueError, match="block of int64"):
        write_shard(tmp_path, small(), (0, 0, 0), np.zeros((4, 3, 7), np.int64))
    assert not list(tmp_path.rglob("*"))


def test_refuses_a_chunk_of_another_shape_or_type(tmp_path):
    with pytest.raises(ValueError, match=r"chunk of uint8 \(2, 3, 3\), expected uint8 \(2, 3, 4\)"):
        write_chunks(tmp_path, small(), (0, 0, 0), lambda part: np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="chunk of int64"):
        write_chunks(tmp_path, small(), (0, 0, 0), lambda part: np.zeros((2, 3, 4), np.int64))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_chunks_that_lie_in_memory_in_any_way_give_the_same_bytes(tmp_path, codec):
    layout = small(codec=codec)
    values = np.random.default_rng(0).integers(0, 9, layout.shape, np.uint8)
    room = np.empty(values.size, np.uint8)

    def reused(part):
        chunk = room[: values[part].size].reshape(values[part].shape)
        chunk[...] = values[part]
        return chunk

    ways = {
        "plain": lambda part: values[part].copy(),
        "strided": lambda part: np.asfortranarray(values)[part],
        "reused": reused,
    }
    for name, chunk in ways.items():
        for shard in layout.shards():
            write_chunks(tmp_path / name, layout, shard, chunk)
    files = [path.relative_to(tmp_path / "plain") for path in tmp_path.glob("plain/c/*/*/*")]
    assert len(files) == 2
    for path in files:
        assert len({(tmp_path / name / path).read_bytes() for name in ways}) == 1


def test_parts_of_all_shards_cover_the_array_once():
    layout = small()
    covered = np.zeros(layout.shape, int)
    for shard in layout.shards():
        numbers = []
        for number, part in layout.parts(shard):
            covered[part] += 1
            numbers.append(number)
        assert numbers == sorted(numbers)
    assert (covered == 1).all()
    assert [number for number, _ in layout.parts((1, 0, 0))] == [
        0,
        1,
    ]  # of four: the others are beyond the end


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_zarr_reads_counts_of_16_bits(tmp_path, codec):
    values = np.random.default_rng(0).integers(0, 300, (3, 2, 70, 130), np.uint16)
    layout = frames_layout(values.shape, ("n", "c", "y", "x"), dtype="uint16", codec=codec)
    write_array(tmp_path / "array", layout, values)
    found = zarr.open_array(tmp_path / "array", mode="r")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[:], values)


def test_refuses_shards_that_are_not_made_of_chunks():
    with pytest.raises(ValueError, match="whole chunks"):
        small(chunk=(3, 3, 4))
    with pytest.raises(ValueError, match="differ in length"):
        small(names=("a",))


def test_compressing_gives_the_same_bytes_every_time(monkeypatch):
    from numcodecs import blosc

    rng = np.random.default_rng(0)  # blocks that take different times
    data = rng.integers(0, 3, 4_000_000, np.uint8) * rng.integers(0, 2, 40, np.uint8).repeat(100_000)
    before = blosc.set_nthreads(8)
    for codec in ("lz4", "zstd"):
        monkeypatch.setattr(blosc, "use_threads", True)
        assert len({compressor(codec).encode(data.tobytes()) for _ in range(8)}) == 1
    blosc.set_nthreads(before)
    assert compressor("none") is None


@pytest.mark.parametrize(
    ("size", "side"),
    [(1, 1), (96, 96), (128, 128), (250, 125), (360, 120), (400, 100), (640, 128), (720, 120)],
)
def test_tiles_divide_the_usual_sizes(size, side):
    assert tile_side(size) == side and size % side == 0


def test_tiles_of_a_prime_size_waste_little():
    side = tile_side(257)
    assert 64 <= side <= 128 and -257 % side == min(-257 % s for s in range(64, 129))


@pytest.mark.parametrize(
    "shape", [(1, 3, 20, 30), (700, 3, 720, 1280), (50, 32, 361, 641), (3, 32, 2160, 3840)]
)
def test_frames_are_cut_into_tiles_of_one_frame(shape):
    layout = frames_layout(shape, ("n", "c", "y", "x"))
    assert layout.chunk[:2] == (1, shape[1]) and max(layout.chunk[2:]) <= 128
    assert layout.grid[1:] == (1, 1, 1)
    one_frame = np.prod(layout.shard[1:])
    assert layout.shard[0] * one_frame <= max(TARGET_SHARD_BYTES, one_frame)


@pytest.mark.parametrize(("codec", "most"), [("none", 1 << 20), ("lz4", 256 << 10)])
@pytest.mark.parametrize("shape", [(1, 10, 2), (100_000, 360, 80), (301, 250, 50), (9, 4000, 500)])
def test_spikes_are_cut_into_whole_frames(shape, codec, most):
    layout = spikes_layout(shape, codec=codec)
    assert layout.chunk[1:] == layout.shard[1:] == shape[1:]
    assert np.prod(layout.chunk) <= max(most, np.prod(shape[1:]))
    assert np.prod(layout.shard) <= TARGET_SHARD_BYTES


def test_regions_of_all_shards_cover_the_array_once():
    layout = small()
    covered = np.zeros(layout.shape, int)
    for shard in layout.shards():
        covered[layout.region(shard)] += 1
    assert (covered == 1).all()
    assert [shard_key(s) for s in itertools.islice(layout.shards(), 2)] == ["c/0/0/0", "c/1/0/0"]
