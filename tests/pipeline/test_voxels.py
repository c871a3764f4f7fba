import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.voxels import bin_edges, bin_packed, bin_spikes, frames_per_bin


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


def test_a_full_bin_counts_to_255_and_no_further():
    ones = np.ones((255, 1, 9), np.uint8)
    packed = np.packbits(ones, axis=2, bitorder="little")
    assert (bin_spikes(ones, 1) == 255).all() and (bin_packed(packed, 1, 9) == 255).all()
    for count, frames in ((bin_spikes, ones), (lambda p, k: bin_packed(p, k, 9), packed)):
        with pytest.raises(ValueError, match="256 frames in 1 bins put 256 in one bin"):
            count(np.concatenate([frames, frames[:1]]), 1)


def test_refuses_rows_of_another_width():
    with pytest.raises(ValueError, match="rows of 3 bytes do not hold 16 pixels"):
        bin_packed(np.zeros((4, 2, 3), np.uint8), 2, 16)
