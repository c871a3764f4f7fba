"""Verdicts on error curves that are made to measure."""

import numpy as np
import pytest

from pipeline.alignment.offsets import estimate_offset, estimate_offsets
from pipeline.alignment.sweeps import Curves

PIXELS = 64.0


def curves(best, *, depth=0.02, noise=0.05, seed=0, kind="blurry", first=-12, last=12, tiles=64, widths=1):
    """Parabolas of every tile around `best`, with independent noise."""
    rng = np.random.default_rng(seed)
    offsets = np.arange(first, last + 1)
    shape = (widths, tiles, len(offsets))
    residuals = PIXELS * (1 + depth * (offsets - best) ** 2 + noise * rng.standard_normal(shape))
    return Curves(kind=kind, offsets=offsets, residuals=residuals, r2=0.9)


def frames(bests, **changes):
    return [[curves(best, seed=seed, **changes)] for seed, best in enumerate(bests)]


@pytest.mark.parametrize("best", [-6.0, -3.2, 2.0, 5.0])
def test_a_shift_is_found(best):
    found = estimate_offset([curves(best, seed=k) for k in range(4)])
    assert found.verdict == "shifted" and found.offset == round(best)
    assert found.low < best < found.high and abs(found.best - best) < 0.2


@pytest.mark.parametrize("best", [0.0, 0.4, -0.3])
def test_less_than_half_a_frame_is_aligned(best):
    found = estimate_offset([curves(best)])
    assert (found.verdict, found.offset) == ("aligned", 0)


def test_sharp_frames_alone_are_given_one_frame():
    assert estimate_offset([curves(0.9, kind="sharp")]).verdict == "aligned"
    assert estimate_offset([curves(0.9, kind="blurry")]).verdict == "shifted"
    assert estimate_offset([curves(3.0, kind="sharp", widths=3)]).offset == 3


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_never_aligned(seed):
    found = estimate_offset([curves(0, depth=0.0, seed=100 * seed + k) for k in range(4)])
    assert found.verdict == "undecidable" and found.hint


def test_a_curve_that_is_equal_everywhere_tells_nothing():
    found = estimate_offset([curves(0, depth=0.0, noise=0.0)])
    assert found.verdict == "undecidable" and found.best is None


def test_a_minimum_at_the_end_of_the_sweep_is_not_a_minimum():
    found = estimate_offset([curves(20)])
    assert found.verdict == "undecidable" and "end of the sweep" in found.hint


def test_a_shallow_minimum_is_not_sure_enough():
    found = estimate_offset([curves(0, depth=0.004, noise=0.4)])
    assert found.verdict == "undecidable" and "too little motion" in found.hint


def test_spikes_that_fire_in_step_do_not_make_it_surer():
    """Noise that all tiles share, as of pixels that began to integrate together."""
    rng = np.random.default_rng(3)
    one = curves(0, depth=0.01)
    shared = PIXELS * 0.3 * rng.standard_normal(25)
    moved = Curves(kind="blurry", offsets=one.offsets, residuals=one.residuals + shared, r2=0.9)
    assert estimate_offset([moved]).verdict == "undecidable"
    assert estimate_offset([one]).verdict == "aligned"


def test_no_image_tells_nothing():
    assert estimate_offset([]).verdict == "undecidable"


def test_frames_near_the_ends_of_the_recording_are_left_out_of_the_whole():
    near = [curves(3, seed=9, first=-2), curves(3, seed=8, last=1)]
    found = estimate_offset([*near, *(curves(3, seed=k) for k in range(4))])
    assert found.offsets == tuple(range(-12, 13)) and found.offset == 3


def test_sharp_frames_that_disagree_point_to_their_own_rule():
    found = estimate_offset([curves(0, seed=1), curves(4, seed=2, kind="sharp", widths=3)])
    assert found.verdict == "aligned" and "rule of the sharp frame" in found.hint


def test_windows_that_disagree_widen_the_interval():
    one, other = curves(0.0, kind="sharp", noise=0.01), curves(2.0, kind="sharp", noise=0.01)
    both = Curves(
        kind="sharp",
        offsets=one.offsets,
        residuals=np.concatenate([one.residuals, other.residuals]),
        r2=0.9,
    )
    found = estimate_offset([both])
    assert found.low < 0.1 and found.high > 1.9


def test_every_frame_is_judged_alone():
    found = estimate_offsets(frames([2, 2, 2]))
    assert [one.offset for one in found.frames] == [2, 2, 2] and found.whole.offset == 2


@pytest.mark.parametrize("bests", [[0, -2, -4, -6, -8], [-3, -3, -3, 3, 3, 3], [-2, -1, 0, 1, 2]])
def test_a_clock_that_drifts_or_jumps_is_not_a_shift(bests):
    found = estimate_offsets(frames(bests)).whole
    assert (found.verdict, found.offset) == ("drifting", 0) and "clock" in found.hint


def test_a_steady_shift_is_no_drift():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert estimate_offsets(frames(3 + 0.3 * rng.standard_normal(6))).whole.verdict == "shifted"


def test_the_same_curves_get_the_same_verdict():
    assert estimate_offsets(frames([1, 2, 3, 1])) == estimate_offsets(frames([1, 2, 3, 1]))
