import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.voxels import (
    PackedFrames,
    bin_edges,
    bin_packed,
    bin_spikes,
    count_window,
    counts_type,
    frames_per_bin,
)


def bins_of_frames(num_frames: int, num_bins: int) -> list[int]:
    return [j * num_bins // num_frames for j in range(num_frames)]


def test_edges_by_hand():
    assert bin_edges(8, 4).tolist() == [0, 2, 4, 6, 8]
    assert bin_edges(5, 3).tolist() == [0, 2, 4, 5]  # bins of frames 0..4: 0 0 1 1 2
    assert bin_edges(2, 4).tolist() == [0, 1, 1, 2, 2]  # frames 0 and 1 are in bins 0 and 2
    assert bin_edges(88, 32)[:5].tolist() == [0, 3, 6, 9, 11]


@given(st.integers(1, 400), st.integers(1, 100))
def test_edges_say_which_bin_each_frame_is_in(num_frames, num_bins):
    edges = bin_edges(num_frames, num_bins)
    of_edges = [k for k in range(num_bins) for _ in range(edges[k], edges[k + 1])]
    assert of_edges == bins_of_frames(num_frames, num_bins)
    assert frames_per_bin(num_frames, num_bins).sum() == num_frames


@pytest.mark.parametrize(("num_frames", "num_bins"), [(0, 4), (4, 0), (-1, 4)])
def test_refuses_no_frames_and_no_bins(num_frames, num_bins):
    with pytest.raises(ValueError, match="cannot cut"):
        bin_edges(num_frames, num_bins)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 5), st.integers(1, 27), st.integers(0, 99))
def test_both_counts_equal_counting_frame_by_frame(num_frames, num_bins, height, width, seed):
    spikes = np.random.default_rng(seed).integers(0, 2, (num_frames, height, width), np.uint8)
    expected = np.zeros((num_bins, height, width), np.uint8)
    for j, k in enumerate(bins_of_frames(num_frames, num_bins)):
        expected[k] += spikes[j]
    packed = np.packbits(spikes, axis=2, bitorder="little")
    np.testing.assert_array_equal(bin_spikes(spikes, num_bins), expected)
    np.testing.assert_array_equal(bin_packed(packed, num_bins, width), expected)


def test_a_flipped_view_is_counted_like_its_copy():
    packed = np.random.default_rng(0).integers(0, 256, (20, 6, 3), np.uint8)[:, ::-1]
    np.testing.assert_array_equal(bin_packed(packed, 4, 24), bin_packed(packed.copy(), 4, 24))


def test_a_bin_of_more_than_255_frames_counts_in_16_bits():
    ones = np.ones((256, 1, 9), np.uint8)
    packed = np.packbits(ones, axis=2, bitorder="little")
    for count, frames in ((bin_spikes, ones), (lambda p, k: bin_packed(p, k, 9), packed)):
        assert (full := count(frames[:255], 1)).dtype == np.uint8 and (full == 255).all()
        assert (over := count(frames, 1)).dtype == np.uint16 and (over == 256).all()
        assert count(frames, 2).dtype == np.uint8


def test_the_type_of_counts_by_hand():
    assert (counts_type(510, 2), counts_type(511, 2), counts_type(65535, 1)) == ("uint8", "uint16", "uint16")
    with pytest.raises(ValueError, match="65536 frames in 1 bins put 65536 in one bin, more than uint16"):
        counts_type(65536, 1)


def test_long_bins_are_exact():
    """More frames than one pass of bytes holds, at the shares of spikes where planes overflow first."""
    rng = np.random.default_rng(7)
    for num_frames, num_bins in ((255, 1), (600, 2), (1021, 1), (3000, 7)):
        spikes = (rng.random((num_frames, 2, 140)) < np.linspace(0.5, 1, 140)).astype(np.uint8)
        packed = np.packbits(spikes, axis=2, bitorder="little")
        found = bin_packed(packed, num_bins, 140)
        assert found.dtype == counts_type(num_frames, num_bins)
        np.testing.assert_array_equal(found, bin_spikes(spikes, num_bins))


LAID_OUT = ("rows up", "steps", "part", "columns", "pieces")


@st.composite
def windows(draw):
    height, width = (
        draw(st.integers(1, 7)),
        draw(st.sampled_from([1, 7, 20, 63, 64, 65, 100, 127, 128, 130, 256, 401])),
    )
    top = draw(st.integers(0, height - 1))
    left = draw(st.one_of(st.integers(0, width - 1), st.just(0), st.just((width - 1) // 2 // 8 * 8)))
    bottom = draw(st.integers(top + 1, height))
    right = draw(st.one_of(st.integers(left + 1, width), st.just(width)))
    return (height, width), (top, bottom), (left, right)


@settings(deadline=None, max_examples=300)
@given(windows(), st.integers(1, 600), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_any_window_is_counted_as_the_plain_counts_cut_out(window, num_frames, num_bins, wide, seed):
    (height, width), rows, columns = window
    rng = np.random.default_rng(seed)
    spikes = rng.integers(0, 2, (num_frames, height, width), np.uint8) | (rng.random((height, width)) < 0.2)
    packed = np.packbits(spikes, axis=2, bitorder="little")
    expected = bin_spikes(spikes, num_bins)[:, slice(*rows), slice(*columns)]
    out = np.full((num_bins, *expected.shape[1:]), 77, np.uint16 if wide else expected.dtype)
    count_window(packed, bin_edges(num_frames, num_bins), rows, columns, out)
    np.testing.assert_array_equal(out, expected)


@settings(deadline=None, max_examples=100)
@given(
    windows(),
    st.integers(1, 40),
    st.sampled_from(["rows up", "steps", "part", "columns", "pieces"]),
    st.integers(0, 9),
)
def test_frames_may_lie_anywhere_and_nothing_beside_the_counts_is_touched(window, num_frames, kind, seed):
    (height, width), rows, columns = window
    spikes = np.random.default_rng(seed).integers(0, 2, (num_frames, height, width), np.uint8)
    packed = np.packbits(spikes, axis=2, bitorder="little")
    parts = [packed]
    if kind == "rows up":
        parts, spikes = [packed[:, ::-1]], spikes[:, ::-1]
    elif kind == "steps":
        parts, spikes = [packed[::3]], spikes[::3]
    elif kind == "part":
        parts = [np.pad(packed, [(1, 1), (2, 0), (3, 5)])[1:-1, 2:, 3:-5]]
    elif kind == "columns":
        parts = [np.asfortranarray(packed)]
    else:
        parts = [packed[i : i + 9] for i in range(0, num_frames, 9)]
    num_bins = 5
    expected = bin_spikes(spikes, num_bins)[:, slice(*rows), slice(*columns)]
    room = np.full(np.add(expected.shape, 4), 77, np.uint8)
    inner = (slice(2, -2),) * 3
    PackedFrames.of(parts).count(bin_edges(len(spikes), num_bins), rows, columns, room[inner])
    np.testing.assert_array_equal(room[inner], expected)
    room[inner] = 77
    assert (room == 77).all()


def test_contiguous_counts_do_not_run_over_their_end():
    packed = np.random.default_rng(0).integers(0, 256, (20, 9, 50), np.uint8)
    spikes = np.unpackbits(packed, axis=2, bitorder="little")
    room = np.full(4 * 5 * 100 + 300, 77, np.uint8)
    for columns in ((0, 100), (100, 200), (300, 400), (393, 400)):
        size = 4 * 5 * (columns[1] - columns[0])
        out = room[:size].reshape(4, 5, -1)
        count_window(packed, bin_edges(20, 4), (2, 7), columns, out)
        np.testing.assert_array_equal(out, bin_spikes(spikes, 4)[:, 2:7, slice(*columns)])
        assert (room[size:] == 77).all()
        room[:] = 77


def test_bins_may_leave_frames_out():
    spikes = np.random.default_rng(0).integers(0, 2, (20, 3, 140), np.uint8)
    packed = np.packbits(spikes, axis=2, bitorder="little")
    out = np.empty((2, 3, 140), np.uint8)
    count_window(packed, np.array([3, 8, 19]), (0, 3), (0, 140), out)
    np.testing.assert_array_equal(out, [spikes[3:8].sum(0), spikes[8:19].sum(0)])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"edges": np.array([0, 21])}, "do not cut 20 frames"),
        ({"edges": np.array([-1, 4])}, "do not cut 20 frames"),
        ({"edges": np.array([5, 4])}, "do not cut 20 frames"),
        ({"edges": np.array([5])}, "expected writable counts"),
        ({"edges": np.array([5, 4]), "out": np.empty((1, 3, 160), np.uint16)}, "do not cut 20 frames"),
        ({"edges": np.array([0, 21]), "out": np.empty((1, 3, 160), np.uint16)}, "do not cut 20 frames"),
        ({"rows": (0, 4)}, "do not lie in frames of 3x160"),
        ({"rows": (1, 1)}, "do not lie in frames"),
        ({"columns": (-1, 159)}, "do not lie in frames"),
        ({"columns": (1, 161)}, "do not lie in frames"),
        ({"out": np.empty((1, 3, 159), np.uint8)}, "expected writable counts"),
        ({"out": np.empty((1, 3, 160), np.int64)}, "expected writable counts"),
        ({"out": np.broadcast_to(np.uint8(0), (1, 3, 160))}, "expected writable counts"),
    ],
)
def test_refuses_windows_that_do_not_fit(changes, problem):
    fitting = {
        "packed": np.zeros((20, 3, 20), np.uint8),
        "edges": np.array([0, 20]),
        "rows": (0, 3),
        "columns": (0, 160),
        "out": np.empty((1, 3, 160), np.uint8),
    }
    count_window(**fitting)
    with pytest.raises(ValueError, match=problem):
        count_window(**(fitting | changes))


def test_refuses_bins_that_do_not_fit_the_type():
    packed = np.zeros((256, 1, 16), np.uint8)
    with pytest.raises(ValueError, match="256 frames in one bin are more than uint8 can count"):
        count_window(packed, np.array([0, 256]), (0, 1), (0, 128), np.empty((1, 1, 128), np.uint8))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [np.zeros((2, 3), np.uint8)],
        [np.zeros((2, 3, 4))],
        [np.zeros((0, 3, 9), np.uint8)],
        [np.zeros((2, 3, 8), np.uint8), np.zeros((2, 3, 9), np.uint8)],
    ],
)
def test_refuses_what_are_no_packed_frames(parts):
    with pytest.raises(ValueError, match="frames"):
        PackedFrames.of(parts)


def test_refuses_rows_of_another_width():
    with pytest.raises(ValueError, match="rows of 3 bytes do not hold 16 pixels"):
        bin_packed(np.zeros((4, 2, 3), np.uint8), 2, 16)
