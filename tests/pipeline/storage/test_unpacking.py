from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numcodecs import Blosc

from pipeline.storage.gather import gather_bits, room_bytes
from pipeline.storage.unpacking import SPARE_BYTES, unpack_planes, unpacked_bytes

BIT, BYTE, NONE = Blosc.BITSHUFFLE, Blosc.SHUFFLE, Blosc.NOSHUFFLE


def packed(values: np.ndarray, **changes) -> np.ndarray:
    settings = {"cname": "lz4", "clevel": 5, "shuffle": BIT, "typesize": 1, "blocksize": 0}
    data = Blosc(**(settings | changes)).encode(values)
    view = np.frombuffer(data, np.uint8)
    assert not view.flags.writeable
    return view


def counts(size: int, most: int = 3) -> np.ndarray:
    return np.minimum(np.random.default_rng(size).poisson(0.5, size), most).astype(np.uint8)


def joined(data: np.ndarray, size: int) -> np.ndarray:
    room, block_bytes = unpack_planes(data, size)
    assert len(room) >= size + SPARE_BYTES
    if not block_bytes:
        return room[:size].copy()
    out = np.empty((1, 1, 1, size), np.uint8)
    gather_bits(room, block_bytes, out.shape, (0, 0, 0, 0), out, np.empty(room_bytes(out.shape), np.uint8))
    return out.reshape(-1)


@pytest.mark.parametrize("cname", ["lz4", "zstd"])
@pytest.mark.parametrize("size", [1, 7, 8, 64, 120, 127, 128, 136, 1000, 4096, 200_001, 200_008, 491_520])
@pytest.mark.parametrize("most", [1, 255])
def test_planes_joined_are_the_chunk_again(cname, size, most):
    values = counts(size, most)
    for blocksize in (0, 1 << 14):
        data = packed(values, cname=cname, blocksize=blocksize)
        before = data.copy()
        assert unpacked_bytes(data) == size
        np.testing.assert_array_equal(joined(data, size), values)
        np.testing.assert_array_equal(data, before)


def test_large_chunks_of_whole_words_are_left_as_planes():
    for size in (4096, 491_520):
        assert unpack_planes(packed(counts(size)), size)[1] > 0


@pytest.mark.parametrize(
    "changes",
    [{"shuffle": NONE}, {"shuffle": BYTE, "typesize": 2}, {"shuffle": BIT, "typesize": 2}, {"clevel": 0}],
)
def test_chunks_of_which_no_planes_can_be_had_are_unpacked_whole(changes):
    values = counts(4096)
    room, block_bytes = unpack_planes(packed(values, **changes), 4096)
    assert block_bytes == 0
    np.testing.assert_array_equal(room[:4096], values)


def test_noise_is_kept_as_it_is():
    values = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
    np.testing.assert_array_equal(joined(packed(values), 4096), values)


def test_every_thread_has_memory_of_its_own():
    sizes = [4096, 8192, 491_520] * 20
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda size: joined(packed(counts(size)), size), sizes)
        for size, values in zip(sizes, found, strict=True):
            np.testing.assert_array_equal(values, counts(size))


def test_what_is_too_short_for_a_header_unpacks_to_nothing():
    assert unpacked_bytes(np.ones(15, np.uint8)) == 0
