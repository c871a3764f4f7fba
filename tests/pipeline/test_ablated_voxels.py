"""Voxel grids with other spikes: exact where that can be worked out, and the same in every window."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.ablated_voxels import FewerSpikes, HigherThreshold, NoSpikes, OtherFrames

WINDOWS = (np.s_[1], np.s_[:, 2:5], np.s_[1:3, :, 3:7, 2:9], np.s_[-1, 1:, :4, 5])


@pytest.fixture(scope="module", params=["uint8", "uint16"])
def grids(request):
    return np.random.default_rng(0).integers(0, 6, (4, 6, 8, 10)).astype(request.param)


def changed(grids):
    """Each kind of change."""
    return [
        NoSpikes(grids),
        OtherFrames(grids, [2, 3, 0, 1]),
        HigherThreshold(grids, 3, seed=1),
        FewerSpikes(grids, Fraction(2, 3), seed=1),
    ]


def test_any_window_is_that_of_the_whole_and_the_recording_stays_as_it_is(grids):
    before = grids.copy()
    for source in changed(grids):
        whole = source[:]
        assert source.shape == whole.shape == grids.shape and source.dtype == whole.dtype == grids.dtype
        for window in WINDOWS:
            np.testing.assert_array_equal(source[window], whole[window])
    np.testing.assert_array_equal(grids, before)


def test_no_spikes_are_none(grids):
    assert not NoSpikes(grids)[:].any()


def test_frames_come_from_where_they_are_said_to(grids):
    np.testing.assert_array_equal(OtherFrames(grids, [2, 0, 0])[:], grids[[2, 0, 0]])


def test_a_frame_that_is_not_there_cannot_be_read(grids):
    source = OtherFrames(grids, [None, 1])
    np.testing.assert_array_equal(source[1], grids[1])
    with pytest.raises(IndexError, match="no counts of frame 0"):
        source[:]


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_a_higher_threshold_leaves_every_mth_spike(grids, threshold):
    found = HigherThreshold(grids, threshold, seed=3)[:].astype(int)
    before, after = grids.astype(int).cumsum(axis=1), found.cumsum(axis=1)
    phase = np.max(threshold * after - before, axis=1)  # the least that explains the series
    assert (phase < threshold).all()
    assert (after == (before + np.maximum(phase, 0)[:, None]) // threshold).all()
    if threshold > 1:
        assert (HigherThreshold(grids, threshold, seed=4)[:] != found).any()


def test_thinning_keeps_the_share_and_the_binomial_spread():
    grids = np.full((2, 4, 64, 64), 6, np.uint8)
    kept = FewerSpikes(grids, Fraction(1, 3), seed=0)[:].astype(float)
    assert kept.mean() == pytest.approx(2, abs=0.03) and kept.var() == pytest.approx(6 * 2 / 9, rel=0.03)
    other = FewerSpikes(grids, Fraction(1, 3), seed=1)[:]
    assert abs(np.corrcoef(kept.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1), Fraction(3, 2)])
def test_refuses_a_share_that_is_none(grids, share):
    with pytest.raises(ValueError, match="share"):
        FewerSpikes(grids, share, seed=0)
