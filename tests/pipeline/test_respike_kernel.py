import numpy as np
import pytest

from pipeline.respike_kernel import (
    ADD_DARK,
    GAIN_BITS,
    LOSE,
    MOST_GAIN,
    MOST_THRESHOLD,
    REFIRE,
    THIN,
    draw_phases,
)

ONE = 1 << GAIN_BITS
KINDS = ["uint8", "uint16"]


def refired(counts, frames, phase, gain, threshold):
    """The same pixel by pixel, in Python's integers."""
    out = np.empty_like(counts)
    for t, p in np.ndindex(counts.shape[0], counts.shape[2]):
        integral = int(phase[t, p])
        for k in range(counts.shape[1]):
            fired, integral = divmod(integral + int(counts[t, k, p]) * int(gain[p]), threshold * ONE)
            out[t, k, p] = min(fired, int(frames[t, k]))
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [1, 2, 3, 7, MOST_THRESHOLD])
def test_fires_as_a_pixel_that_is_followed_by_itself(kind, threshold):
    rng = np.random.default_rng(threshold)
    most = np.iinfo(kind).max
    counts = rng.integers(0, most + 1, (2, 5, 100)).astype(kind)
    frames = rng.integers(most // 2, most + 1, (2, 5))
    gain = rng.integers(0, MOST_GAIN * ONE + 1, 100, dtype=np.int32)
    gain[:50] = ONE
    phase = rng.integers(0, threshold * ONE, (2, 100), dtype=np.int32)
    expected = refired(counts, frames, phase, gain, threshold)
    REFIRE[kind](counts, frames, phase, gain, threshold)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_independent_with_the_share_that_is_asked_for(kind):
    before = np.random.default_rng(0).integers(0, 9, (4, 50, 1000)).astype(kind)
    counts = before.copy()
    LOSE[kind](counts, 0.2, np.uint64(5))
    assert (counts <= before).all()
    for value in (1, 4, 8):  # binomial: mean and variance of what is left of `value` spikes
        left = counts[before == value].astype(float)
        assert left.mean() == pytest.approx(0.8 * value, abs=4 * (0.16 * value / len(left)) ** 0.5)
        assert left.var() == pytest.approx(0.16 * value, rel=0.05)
    lost = (before.astype(int) - counts)[:, :, :-1], (before.astype(int) - counts)[:, :, 1:]
    assert abs(np.corrcoef(lost[0].ravel() - 0.2 * before[:, :, :-1].ravel(),
                           lost[1].ravel() - 0.2 * before[:, :, 1:].ravel())[0, 1]) < 0.01  # fmt: skip


def test_almost_all_can_get_lost_and_almost_none():
    counts = np.full((1, 10, 1000), 200, np.uint8)
    LOSE["uint8"](counts, 0.999, np.uint64(1))
    assert 0.05 < counts.mean() < 0.4
    counts[:] = 200
    LOSE["uint8"](counts, 1e-18, np.uint64(1))
    assert (counts == 200).all()


@pytest.mark.parametrize("kind", KINDS)
def test_dark_spikes_are_poisson_in_the_frames_of_each_bin(kind):
    counts = np.zeros((3, 2, 40000), kind)
    frames = np.array([[40, 3], [0, 100], [7, 7]])
    ADD_DARK[kind](counts, frames, 0.02, np.uint64(9))
    for t, k in np.ndindex(3, 2):
        mean, found = 0.02 * frames[t, k], counts[t, k].astype(float)
        assert found.mean() == pytest.approx(mean, abs=4 * (mean / found.size) ** 0.5)
        assert found.var() == pytest.approx(mean, rel=0.05)
    assert abs(np.corrcoef(counts[1, 1, 1:], counts[1, 1, :-1])[0, 1]) < 0.02


def test_no_bin_gets_more_spikes_than_it_has_frames():
    counts = np.full((1, 2, 5000), 2, np.uint8)
    ADD_DARK["uint8"](counts, np.array([[2, 3]]), 0.9, np.uint64(0))
    assert (counts[0, 0] == 2).all() and counts[0, 1].max() == 3 and (counts[0, 1] == 3).mean() > 0.8


def test_the_seed_decides():
    def losses(seed):
        counts = np.full((1, 1, 1000), 3, np.uint8)
        LOSE["uint8"](counts, 0.1, np.uint64(seed))
        return counts

    np.testing.assert_array_equal(losses(1), losses(1))
    assert (losses(1) != losses(2)).any()


def mixed_by_hand(state):
    z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
    return z ^ z >> 31


@pytest.mark.parametrize("kind", KINDS)
def test_each_spike_is_kept_by_its_own_random_number_wherever_the_window_begins(kind):
    whole = (4, 3, 5, 7)
    before = np.random.default_rng(0).integers(0, 6, whole).astype(kind)
    limit, seed = 2**64 // 3, 11
    expected = before.copy()
    for place, count in enumerate(before.ravel()):
        states = ((seed + 0x9E3779B97F4A7C15 * (place * 65536 + j)) % 2**64 for j in range(count))
        expected.ravel()[place] = sum(mixed_by_hand(state) < limit for state in states)
    for first in ((0, 0, 0, 0), (2, 1, 3, 4)):
        window = tuple(slice(start, None) for start in first)
        counts = before[window].copy()
        THIN[kind](counts, np.array(first), np.array(whole), np.uint64(limit), np.uint64(seed))
        np.testing.assert_array_equal(counts, expected[window])


def test_phases_are_uniform_and_depend_on_their_place_only():
    whole = np.array([3, 100, 100])
    phases = np.empty(whole, np.int32)
    draw_phases(phases, np.zeros(3, np.int64), whole, 3, np.uint64(5))
    shares = np.bincount(phases.ravel(), minlength=3) / phases.size
    assert shares == pytest.approx([1 / 3] * 3, abs=0.01) and len(shares) == 3
    part = np.empty((1, 40, 60), np.int32)
    draw_phases(part, np.array([2, 60, 40]), whole, 3, np.uint64(5))
    np.testing.assert_array_equal(part[0], phases[2, 60:, 40:])
    assert phases[0, 0, 1] == (mixed_by_hand(5 + 0x9E3779B97F4A7C15) >> 32) * 3 >> 32
