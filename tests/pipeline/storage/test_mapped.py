import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.storage import mapped
from pipeline.storage.mapped import MappedArray, forget_maps
from pipeline.storage.shards import ArrayLayout, shard_key, write_shard

SHAPE = (5, 6, 11)
CODECS = ("none", "lz4", "zstd")


def write_array(path, values, *, codec="none", **changes):
    settings = {"shape": values.shape, "shard": (4, 6, 12), "chunk": (2, 3, 4), "names": ("a", "b", "c")}
    layout = ArrayLayout(**(settings | changes), dtype=str(values.dtype), codec=codec)
    receipts = [write_shard(path, layout, s, values[layout.region(s)]) for s in layout.shards()]
    ledger = {receipt.key: [receipt.size, receipt.seal] for receipt in receipts}
    (path / "zarr.json").write_text(json.dumps(layout.metadata({"ledger": ledger})))
    return path


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, values):
    root = tmp_path_factory.mktemp("arrays")
    return {codec: MappedArray(write_array(root / codec, values, codec=codec)) for codec in CODECS}


@pytest.fixture
def path(tmp_path, values):
    """One array that a test may damage."""
    return write_array(tmp_path / "array", values)


positions = [st.integers(-n, n - 1) for n in SHAPE]
slices = [
    st.builds(slice, st.none() | st.integers(-n - 2, n + 2), st.none() | st.integers(-n - 2, n + 2))
    for n in SHAPE
]
selections = st.integers(0, 3).flatmap(
    lambda n: st.tuples(*(position | part for position, part in zip(positions[:n], slices[:n], strict=True)))
)


@settings(deadline=None, max_examples=150)
@given(selection=selections)
def test_reads_like_numpy_and_zarr(arrays, values, selection):
    expected = values[selection]
    for array in arrays.values():
        found = array[selection]
        assert found.shape == expected.shape and found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(zarr.open_array(arrays["zstd"].path, mode="r")[:], values)


@st.composite
def layouts(draw):
    """Shapes, shards and chunks that fit each other, and a selection."""
    axes = draw(st.integers(1, 4))
    chunk = tuple(draw(st.integers(1, 9)) for _ in range(axes))
    shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    shape = tuple(draw(st.integers(1, 2 * s)) for s in shard)
    selection = []
    for n in shape[: draw(st.integers(0, axes))]:
        start = draw(st.integers(0, n - 1))
        selection.append(
            draw(st.just(start) | st.integers(start, n).map(lambda stop, a=start: slice(a, stop)))
        )
    steps = draw(st.tuples(*[st.sampled_from((1, -1))] * axes))
    return shape, shard, chunk, tuple(selection), steps, draw(st.permutations(range(axes)))


@settings(deadline=None, max_examples=80)
@given(layout=layouts(), dtype=st.sampled_from(("uint8", "uint16", "int64")), codec=st.sampled_from(CODECS))
def test_reads_into_memory_that_is_laid_out_in_any_way(tmp_path_factory, layout, dtype, codec):
    shape, shard, chunk, selection, steps, order = layout
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    values.flat[0] = np.iinfo(dtype).max
    path = tmp_path_factory.mktemp("any") / "array"
    write_array(
        path, values, codec=codec, shape=shape, shard=shard, chunk=chunk, names=("axis",) * len(shape)
    )
    array = MappedArray(path)
    np.testing.assert_array_equal(array[selection], values[selection])
    expected = values[selection]
    axes = [axis for axis in order if axis < expected.ndim]
    room = np.full([expected.shape[axis] + 1 for axis in axes], 7, dtype)
    inner = room[(*(slice(1, None) for _ in axes), ...)].transpose(np.argsort(axes))
    out = inner[(*(slice(None, None, step) for step, _ in zip(steps, axes, strict=False)), ...)]
    array.read_into(selection, out)
    np.testing.assert_array_equal(out, expected)
    out[...] = 7
    assert (room == 7).all()  # nothing beside it was touched


def test_reads_large_tiles_of_counts_turned_in_any_way(tmp_path):
    """As clips are: the last axes are exchanged or run backwards, and tiles are cut anywhere."""
    rng = np.random.default_rng(0)
    values = rng.poisson(0.5, (3, 4, 100, 90)).clip(0, 200).astype(np.uint8)
    values[0, 0, 50, 40] = 255
    for codec in CODECS:
        path = tmp_path / codec
        sides = {
            "shard": (2, 4, 120, 92),
            "chunk": (1, 4, 40, 46),
            "names": tuple("abcd"),
            "shape": values.shape,
        }
        array = MappedArray(write_array(path, values, codec=codec, **sides))
        for _ in range(20):
            row, column = rng.integers(0, (41, 31))
            cut = (slice(0, 3), slice(None), slice(row, row + 60), slice(column, column + 60))
            out = np.zeros((3, 4, 60, 60), np.uint8)
            view = out.swapaxes(2, 3) if rng.random() < 0.5 else out
            view = view[
                :: rng.choice((1, -1)), :: rng.choice((1, -1)), :: rng.choice((1, -1)), :: rng.choice((1, -1))
            ]
            array.read_into(cut, view)
            np.testing.assert_array_equal(view, values[cut])


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((5, 6, 10), np.uint8),
        np.zeros((1, 5, 6, 11), np.uint8),
        np.zeros(SHAPE, np.int8),
        np.zeros(SHAPE, np.uint16),
        np.broadcast_to(np.zeros(1, np.uint8), SHAPE),
    ],
)
def test_refuses_memory_that_does_not_fit(arrays, out):
    with pytest.raises(ValueError, match="expected uint8"):
        arrays["none"].read_into(slice(None), out)


def test_refuses_to_read_past_the_end_into_memory(arrays):
    with pytest.raises(IndexError):
        arrays["none"].read_into(5, np.zeros(SHAPE[1:], np.uint8))


def test_a_lone_index_needs_no_tuple(arrays, values):
    array = arrays["none"]
    np.testing.assert_array_equal(array[1:3], values[1:3])
    np.testing.assert_array_equal(array[-1], values[-1])
    np.testing.assert_array_equal(array[np.int64(2)], values[2])
    assert array.shape == SHAPE and len(array) == 5 and array.dtype == np.uint8


@pytest.mark.parametrize(
    "selection",
    [
        5,
        -6,
        (0, 6),
        (0, 0, 11),
        (0, 0, 0, 0),
        slice(None, None, 2),
        slice(None, None, -1),
        1.0,
        True,
        None,
        ...,
        [0],
    ],
)
def test_refuses_what_is_outside_or_fancy(arrays, selection):
    with pytest.raises(IndexError):
        arrays["none"][selection]


def test_one_chunk_is_a_view_of_the_map_that_cannot_be_written(arrays):
    found = arrays["none"][0, 1:3, 1:3]
    assert found.base is not None and not found.flags.writeable
    assert np.shares_memory(found, arrays["none"][0, 0:3, 0:4])


def test_reads_signed_tables(tmp_path):
    table = np.array([[-1, 5], [2**60, -(2**60)], [7, 8]])
    path = write_array(tmp_path / "t", table, shape=(3, 2), shard=(4, 2), chunk=(1, 2), names=("a", "b"))
    np.testing.assert_array_equal(MappedArray(path)[:], table)


def test_threads_may_share_an_array(arrays, values):
    forget_maps(arrays["zstd"].path)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: arrays["zstd"][:], range(40)):
            np.testing.assert_array_equal(found, values)


def test_threads_may_unpack_and_verify_the_same_shard_at_once(tmp_path):
    values = np.random.default_rng(0).poisson(0.5, (8, 4, 64, 64)).astype(np.uint8)
    sides = {"shard": (4, 4, 64, 64), "chunk": (1, 4, 32, 32), "names": tuple("abcd"), "shape": values.shape}
    for codec in CODECS:
        array = MappedArray(write_array(tmp_path / codec, values, codec=codec, **sides))

        def read(number, array=array):
            out = np.empty((8, 4, 20, 64), np.uint8)
            array.read_into((slice(None), slice(None), slice(number, number + 20)), out)
            return number, out

        with ThreadPoolExecutor(8) as pool:
            for number, found in pool.map(read, [*range(44)] * 3):
                np.testing.assert_array_equal(found, values[:, :, number : number + 20])


READ_BY_THREADS = """
import sys, threading, time
import numpy as np
from pathlib import Path
from pipeline.storage.mapped import MappedArray

array, values = MappedArray(Path(sys.argv[1])), np.load(sys.argv[2])
wrong, end = [], time.monotonic() + 1.5

def read(seed):
    random = np.random.default_rng(seed)
    while time.monotonic() < end:
        rows = int(random.integers(8, 33))
        first = int(random.integers(0, 64 - rows))
        out = np.empty((8, 4, rows, 64), np.uint8)
        array.read_into((slice(None), slice(None), slice(first, first + rows)), out)
        if not np.array_equal(out, values[:, :, first : first + rows]):
            wrong.append(first)

threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(bool(wrong))
"""


def test_threads_that_share_a_heap_do_not_write_where_another_one_works(tmp_path):
    """With one heap for all threads, memory that a thread still uses after it was freed is at once another one's."""
    values = np.random.default_rng(0).poisson(0.5, (8, 4, 64, 64)).astype(np.uint8)
    sides = {"shard": (4, 4, 64, 64), "chunk": (1, 4, 32, 32), "names": tuple("abcd"), "shape": values.shape}
    path = write_array(tmp_path / "lz4", values, codec="lz4", **sides)
    np.save(tmp_path / "values.npy", values)
    words = [sys.executable, "-c", READ_BY_THREADS, str(path), str(tmp_path / "values.npy")]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(words, env=environment).returncode == 0


def test_goes_to_other_processes(arrays, values):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(arrays["lz4"]))[3], values[3])


def test_only_so_many_shards_stay_mapped(tmp_path, values, monkeypatch):
    maps = mapped._Maps()
    maps._limit = 2
    monkeypatch.setattr(mapped, "_MAPS", maps)
    path = write_array(tmp_path / "many", values, shard=(2, 6, 4))
    array = MappedArray(path)
    for _ in range(2):
        np.testing.assert_array_equal(array[:], values)
        assert len(maps._shards) == 2


FIRST = shard_key((0, 0, 0))
SECOND = shard_key((1, 0, 0))


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "emptied":
        data = b""
    elif how == "truncated":
        data = data[:-1]
    elif how == "grown":
        data += b"\0"
    else:
        data[how] ^= 1
    path.write_bytes(data)


CHUNK = 2 * 3 * 4 + 4
INDEX = 16 * 2 * 2 * 3 + 4


@pytest.mark.parametrize(
    "how",
    ["deleted", "emptied", "truncated", "grown", 0, CHUNK - 1, 5 * CHUNK, -INDEX - 1, -INDEX, -INDEX + 9, -1],
)
def test_a_damaged_shard_is_refused_by_name_when_touched(path, how):
    """Positions: a chunk, its checksum, another chunk, the seal, an offset, a length, the index's checksum."""
    array = MappedArray(path)
    damage(path / FIRST, how)
    with pytest.raises(StoreError, match=str(path / FIRST)):
        array[0:4]
    with pytest.raises(StoreError, match=str(path / FIRST)):
        array.read_into(slice(0, 4), np.empty((4, 6, 11), np.uint8))


def test_every_flipped_bit_is_seen_and_no_value_is_ever_wrong(path, values):
    whole = (path / FIRST).read_bytes()
    for position in range(len(whole)):
        forget_maps(path)
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        (path / FIRST).write_bytes(flipped)
        with pytest.raises(StoreError):
            MappedArray(path)[0:4]


def test_whole_chunks_beside_a_damaged_one_are_read(path, values):
    damage(path / FIRST, 0)
    np.testing.assert_array_equal(MappedArray(path)[2:4], values[2:4])


def test_a_shard_of_another_place_is_refused(tmp_path, values):
    path = write_array(tmp_path / "swap", values[:4], shape=(4, 6, 11), shard=(2, 6, 12))
    one, other = path / FIRST, path / SECOND
    assert one.stat().st_size == other.stat().st_size
    (tmp_path / "x").write_bytes(one.read_bytes())
    other.rename(one)
    (tmp_path / "x").rename(other)
    for k, shard in ((0, one), (2, other)):
        with pytest.raises(StoreError, match=f"{shard}: is not the shard that was written here"):
            MappedArray(path)[k]


def test_a_shard_that_is_not_in_the_ledger_is_refused(path):
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["ledger"][FIRST]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="not in the array's ledger"):
        MappedArray(path)[0]


def test_a_rebuilt_array_is_read_anew(path, values):
    np.testing.assert_array_equal(MappedArray(path)[:], values)
    write_array(path, values[::-1])
    np.testing.assert_array_equal(MappedArray(path)[:], values[::-1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"zarr_format": 3', '"zarr_format": 2'),
        ('"fill_value": 0', '"fill_value": 1'),
        ('"index_location": "end"', '"index_location": "start"'),
        ('"data_type": "uint8"', '"data_type": "uint9"'),
        ('"ledger"', '"ledgre"'),
        ('"shape": [5', '"shape": [9'),
        ("{", ""),
    ],
)
def test_refuses_metadata_that_it_would_not_write(path, old, new):
    text = (path / "zarr.json").read_text()
    assert old in text
    (path / "zarr.json").write_text(text.replace(old, new, 1))
    with pytest.raises(StoreError, match=str(path)):
        MappedArray(path)[:]


def test_refuses_a_folder_without_an_array(tmp_path):
    with pytest.raises(StoreError, match=r"zarr.json is missing"):
        MappedArray(tmp_path)
    (tmp_path / "zarr.json").write_text("[]")
    with pytest.raises(StoreError, match=r"zarr.json"):
        MappedArray(tmp_path)


def test_refuses_more_axes_than_it_reads(tmp_path):
    sides = {"shape": (1,) * 5, "shard": (1,) * 5, "chunk": (1,) * 5, "names": tuple("abcde")}
    path = write_array(tmp_path / "a", np.zeros((1,) * 5, np.uint8), **sides)
    with pytest.raises(StoreError, match="more than 4 axes"):
        MappedArray(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**15, 6, 11]},
        {"shape": [True, 6, 11]},
        {"shape": [0, 6, 11]},
        {"shape": [-5, 6, 11]},
        {"shape": []},
        {"shape": ["5", 6, 11]},
    ],
)
def test_refuses_shapes_that_its_shards_cannot_hold(path, changes):
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | changes))
    with pytest.raises(StoreError, match=str(path)):
        MappedArray(path)


def test_refuses_grids_and_chunks_without_end(path):
    metadata = json.loads((path / "zarr.json").read_text())
    sharding = metadata["codecs"][0]["configuration"]
    for shape, side in (([10**15, 1, 1], [1, 1, 1]), ([10**5] * 3, [10**5] * 3)):
        metadata["shape"] = shape
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = sharding["chunk_shape"] = side
        (path / "zarr.json").write_text(json.dumps(metadata))
        with pytest.raises(StoreError, match="not an array written by spk"):
            MappedArray(path)


def test_refuses_a_chunk_that_unpacks_to_another_size(tmp_path, values):
    larger = np.concatenate([values, values], axis=2)[:, :, :16]
    array = write_array(tmp_path / "a", larger, codec="zstd", shard=(4, 6, 16), chunk=(2, 3, 8))
    metadata = json.loads((array / "zarr.json").read_text())
    metadata["shape"] = [5, 6, 8]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [4, 6, 8]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [2, 3, 4]
    (array / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="a chunk of 48, not 24 bytes"):
        MappedArray(array)[0]


@pytest.mark.parametrize("span", [(0, 5), (1, 2), (3, 5), (4, 5)])
def test_items_in_one_piece_are_located_in_memory(tmp_path, arrays, values, span):
    whole = {"shard": (4, 6, 11), "chunk": (2, 6, 11)}
    array = MappedArray(write_array(tmp_path / "whole", values, **whole))
    chunks, addresses = array.located(*span)
    assert addresses.tolist() == [array[number].ctypes.data for number in range(*span)]
    assert len(chunks) == len({number // 4 for number in range(*span)})
    assert arrays["none"].located(*span) is None  # each item is in several chunks
    packed = MappedArray(write_array(tmp_path / "packed", values, codec="lz4", **whole))
    assert packed.located(*span) is None


def test_items_are_located_once_their_chunks_are_verified(tmp_path, values):
    path = write_array(tmp_path / "whole", values, shard=(4, 6, 11), chunk=(2, 6, 11))
    data = bytearray((path / "c/0/0/0").read_bytes())
    data[2 * 66 + 4 + 7] ^= 1  # in the second chunk
    (path / "c/0/0/0").write_bytes(data)
    array = MappedArray(path)
    assert len(array.located(0, 2)[1]) == 2
    for span in ((0, 3), (2, 5), (3, 4)):
        with pytest.raises(StoreError, match="inner chunk 1 does not match its checksum"):
            array.located(*span)
