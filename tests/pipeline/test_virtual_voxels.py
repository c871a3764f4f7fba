import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.storage.mapped import MappedArray
from pipeline.storage.shards import spikes_layout, write_shard
from pipeline.virtual_voxels import CountedVoxels, VirtualVoxels, packed_frames
from pipeline.voxels import BIN_RULE, bin_spikes

BINS = 3
SPANS = ((0, 40), (33, 341), (640, 642), (60, 860))
"""Of spike frames. The third leaves a bin empty, and without the last all counts fit in 8 bits."""
SHAPE = (900, 7, 300)


def mapped(folder, spikes, codec="none", chunk=64):
    """Packed spikes in a store's array, in chunks of so many frames."""
    packed = np.packbits(spikes, axis=2, bitorder="little")
    layout = spikes_layout(packed.shape, codec=codec)
    sides = packed.shape[1:]
    layout = dataclasses.replace(layout, shard=(4 * chunk, *sides), chunk=(chunk, *sides))
    receipts = [write_shard(folder, layout, shard, packed[layout.region(shard)]) for shard in layout.shards()]
    ledger = {receipt.key: [receipt.size, receipt.seal] for receipt in receipts}
    (folder / "zarr.json").write_text(json.dumps(layout.metadata({"ledger": ledger})))
    return MappedArray(folder)


def about(shape, dtype):
    return {"virtual": True, "num_bins": shape[1], "rule": BIN_RULE, "shape": list(shape), "dtype": dtype}


def virtual_of(folder, array, spans, attributes):
    return VirtualVoxels(folder / "grids", attributes, array, np.array(spans), SHAPE[1:])


@pytest.fixture(scope="module")
def spikes():
    rate = np.linspace(0.05, 1, SHAPE[1] * SHAPE[2]).reshape(SHAPE[1:])
    return (np.random.default_rng(0).random(SHAPE) < rate).astype(np.uint8)


@pytest.fixture(scope="module", params=["none", "lz4"])
def both(request, spikes, tmp_path_factory):
    """Grids of 16 and of 8 bits, counted plainly and virtual; of spikes that are raw, and compressed."""
    folder = tmp_path_factory.mktemp("virtual")
    array = mapped(folder / "spikes", spikes, request.param)
    found = {}
    for dtype, spans in {"uint8": SPANS[:3], "uint16": SPANS}.items():
        plain = np.stack([bin_spikes(spikes[a:b], BINS).astype(dtype) for a, b in spans])
        found[dtype] = plain, virtual_of(folder, array, spans, about(plain.shape, dtype))
    return found


def parts_of(size):
    """Lone indices, from either end, and slices that are whole, cut, open, or empty."""
    places = st.integers(-size, size)
    cut = st.builds(slice, places, places) | st.builds(slice, places, st.none()) | st.just(slice(None))
    return st.integers(-size, size - 1) | cut


def selections(shape):
    return st.integers(0, len(shape)).flatmap(lambda n: st.tuples(*map(parts_of, shape[:n])))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_selection_equals_plain_counts_in_any_memory(both, dtype, data):
    plain, virtual = both[dtype]
    selection = data.draw(selections(plain.shape))
    expected, found = plain[selection], virtual[selection]
    assert found.dtype == virtual.dtype == dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    order = data.draw(st.permutations(range(expected.ndim)))
    turns = data.draw(st.tuples(*[st.sampled_from([1, -1])] * expected.ndim))
    memory = np.full([expected.shape[axis] for axis in order], 99, dtype)
    out = memory.transpose(np.argsort(order))[(..., *(slice(None, None, turn) for turn in turns))]
    virtual.read_into(selection, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("side", [1, 40, 127, 128, 129, 200])
def test_turned_crops_of_all_widths(both, side):
    plain, virtual = both["uint8"]
    for column in (0, 3, 8, SHAPE[2] - side):
        cut = (slice(0, 3), slice(None), slice(1, 6), slice(column, column + side))
        for turn in (np.s_[::-1, ::-1, ::-1], np.s_[:, :, ::-1, ::-1], np.s_[...]):
            around = np.full((5, BINS + 2, 7, side + 2), 99, np.uint8)
            virtual.read_into(cut, around[1:-1, 1:-1, 1:-1, 1:-1][turn])
            np.testing.assert_array_equal(around[1:-1, 1:-1, 1:-1, 1:-1][turn], plain[cut])
            around[1:-1, 1:-1, 1:-1, 1:-1] = 99
            assert (around == 99).all()


def test_looks_like_a_mapped_array(both):
    plain, virtual = both["uint8"]
    assert virtual.shape == plain.shape == (3, BINS, *SHAPE[1:]) and len(virtual) == 3
    assert virtual.attributes["virtual"] is True and virtual.path.name == "grids"
    for wrong in ((0,) * 5, (3,), (slice(None, None, 2),), ([0, 1],), (True,)):
        with pytest.raises(IndexError):
            virtual[wrong]
    for out in (np.empty((BINS, SHAPE[1], 1), np.uint8), np.empty(plain.shape[1:], np.uint16)):
        with pytest.raises(ValueError, match="expected uint8"):
            virtual.read_into(0, out)
    with pytest.raises(ValueError, match="can be written"):
        virtual.read_into(0, np.broadcast_to(np.uint8(0), plain.shape[1:]))


def test_only_the_frames_of_the_selected_bins_are_touched(spikes, tmp_path):
    """The chunk with frame 20 is damaged; of 40 frames in 4 bins, the second bin alone is in it."""
    array = mapped(tmp_path / "spikes", spikes, chunk=10)
    shard = tmp_path / "spikes/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[2 * (10 * SHAPE[1] * 38 + 4) + 5] ^= 1
    shard.write_bytes(data)
    virtual = virtual_of(tmp_path, array, [(0, 40)], about((1, 4, *SHAPE[1:]), "uint8"))
    expected = bin_spikes(spikes[:40], 4)
    np.testing.assert_array_equal(virtual[0, :2], expected[:2])
    np.testing.assert_array_equal(virtual[0, 3], expected[3])
    for bins in (2, slice(1, 4), slice(None)):
        with pytest.raises(StoreError, match="inner chunk 2 does not match its checksum"):
            virtual[0, bins]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rule": "by guessing"}, "not the rule"),
        ({"num_bins": 0}, "not the rule"),
        ({"num_bins": True}, "not the rule"),
        ({"num_bins": "3"}, "not the rule"),
        ({"num_bins": 4}, "its spikes give"),
        ({"shape": [1, 3, 7, 299]}, "its spikes give"),
        ({"dtype": "uint16"}, "its spikes give"),
        ({"shape": None}, "its spikes give"),
    ],
)
def test_refuses_attributes_that_are_not_of_these_spikes(spikes, tmp_path, changes, problem):
    array = mapped(tmp_path / "spikes", spikes)
    attributes = about((1, 3, *SHAPE[1:]), "uint8")
    assert virtual_of(tmp_path, array, [(0, 40)], attributes).shape == (1, 3, *SHAPE[1:])
    with pytest.raises(StoreError, match=problem):
        virtual_of(tmp_path, array, [(0, 40)], attributes | changes)
    for span in ((0, 901), (-1, 40), (40, 40)):
        with pytest.raises(StoreError, match="fewer than the exposures say"):
            virtual_of(tmp_path, array, [span], attributes)


def test_refuses_bins_that_cannot_be_counted(tmp_path):
    array = mapped(tmp_path / "spikes", np.zeros((65_600, 1, 64), np.uint8), chunk=8192)
    with pytest.raises(StoreError, match="more than uint16 can count"):
        VirtualVoxels(tmp_path, about((1, 1, 1, 64), "uint16"), array, np.array([(0, 65_600)]), (1, 64))


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("span", [(5, 6), (0, 64), (60, 70), (0, 64 * 5), (300, 900)])
def test_frames_are_taken_where_they_lie(spikes, tmp_path, codec, span):
    array = mapped(tmp_path / "spikes", spikes, codec)
    found = packed_frames(array, *span)
    whole = np.zeros((1, *SHAPE[1:]), np.uint8)
    for k, frame in enumerate(spikes[slice(*span)]):
        found.count(np.array([k, k + 1]), (0, SHAPE[1]), (0, SHAPE[2]), whole)
        np.testing.assert_array_equal(whole[0], frame)
    assert len(found) == span[1] - span[0]
    in_place = [number for number in range(*span) if array[number].ctypes.data in found.addresses]
    assert in_place == ([] if codec == "lz4" else [*range(*span)])


def test_frames_of_a_few_pixels_are_counted_too(tmp_path):
    spikes = np.random.default_rng(0).integers(0, 2, (200, 5, 20), np.uint8)
    array = mapped(tmp_path / "spikes", spikes)
    counts = np.empty((2, 3, 9), np.uint8)
    packed_frames(array, 50, 150).count(np.array([0, 60, 100]), (1, 4), (11, 20), counts)
    np.testing.assert_array_equal(
        counts, [spikes[50 + a : 50 + b, 1:4, 11:].sum(0) for a, b in ((0, 60), (60, 100))]
    )


def test_any_spans_of_a_recording_can_be_counted(spikes, tmp_path):
    array = mapped(tmp_path / "spikes", spikes)
    spans = np.array([(7, 47), (300, 330)])
    found = CountedVoxels(partial(packed_frames, array), spans, BINS, SHAPE[1:])
    np.testing.assert_array_equal(found[:], np.stack([bin_spikes(spikes[a:b], BINS) for a, b in spans]))
