import math

import numpy as np
import pytest

from model.evaluation.paired import LEVEL, estimate, student_quantile


def test_means_over_frames_and_over_sequences() -> None:
    found = estimate([np.array([1.0]), np.array([2.0, 4.0, 6.0]), np.array([0.0, 0.0])], samples=1000)
    assert found.frames.mean == pytest.approx(13 / 6)
    assert found.sequences.mean == pytest.approx((1 + 4 + 0) / 3)
    assert [one.mean for one in found.per_sequence] == pytest.approx([1, 4, 0])
    assert found.unit == "sequences"


def test_the_interval_of_three_sequences_worked_out_by_hand() -> None:
    # Of 27 draws of 0, 1, 2 one is all 0 and one all 2: 3.7 %, so the outer 2.5 % are 0 and 2. Student's t with two
    # degrees of freedom is 4.3027, the normal 1.9600, and sqrt(3 / 2) makes up for the spread of three.
    found = estimate([np.full(5, 0.0), np.full(5, 1.0), np.full(5, 2.0)], samples=20_000).frames
    half = 4.3027 / 1.9600 * math.sqrt(1.5)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1 - half, 1 + half), abs=1e-3)
    assert not found.is_above_zero and not found.is_below_zero


def test_blocks_of_one_sequence_worked_out_by_hand() -> None:
    # Four frames are two blocks of two, of which the four possible means are 0, 1, 2, 1: a draw of two is 0 or 2 with
    # probability 1/16 each. One degree of freedom: t = 12.706.
    found = estimate([np.array([0.0, 0.0, 2.0, 2.0])], samples=20_000)
    half = 12.706 / 1.9600 * math.sqrt(2)
    assert found.unit == "blocks"
    assert (found.frames.low, found.frames.high) == pytest.approx((1 - half, 1 + half), abs=2e-3)
    assert found.frames == found.sequences == found.per_sequence[0]


def test_a_difference_without_noise_has_an_interval_without_width() -> None:
    for sequences in (1, 2, 5):
        found = estimate([np.full(9, -0.06)] * sequences, samples=1000).frames
        assert found.is_below_zero and found.high == pytest.approx(-0.06, abs=1e-12)


def test_too_few_frames_have_no_interval() -> None:
    found = estimate([np.array([1.0, 2.0, 3.0])], samples=1000)
    assert not found.frames.is_known and found.frames.mean == 2
    assert not found.frames.is_above_zero and not found.frames.is_below_zero


def test_the_same_seed_draws_the_same() -> None:
    some = [np.random.default_rng(i).normal(size=20) for i in range(5)]
    assert estimate(some, samples=1000, seed=3) == estimate(some, samples=1000, seed=3)
    assert estimate(some, samples=1000, seed=3).frames.low != estimate(some, samples=1000, seed=4).frames.low


@pytest.mark.parametrize("sequences", [[], [np.array([])]])
def test_refuses_nothing(sequences: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no estimate"):
        estimate(sequences)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (10, 2.22814), (29, 2.04523), (2000, 1.95996)],
)
def test_quantiles_of_students_t(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=1e-4)


def _trial(seed: int, count: int) -> list[np.ndarray]:
    """Differences of mean 0.1 whose sequences differ, of frames that are alike."""
    rng = np.random.default_rng(seed)
    return [0.1 + rng.normal() + 0.5 * rng.normal(size=rng.integers(20, 60)) for _ in range(count)]


def _plain_interval(differences: list[np.ndarray], seed: int) -> tuple[float, float]:
    """As if every frame were drawn for itself."""
    frames = np.concatenate(differences)
    drawn = np.random.default_rng(seed).integers(len(frames), size=(300, len(frames)))
    low, high = np.quantile(frames[drawn].mean(1), (0.025, 0.975))
    return low, high


@pytest.mark.parametrize("count", [4, 11])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int) -> None:
    trials = [_trial(seed, count) for seed in range(300)]
    found = [estimate(one, samples=1000, seed=seed) for seed, one in enumerate(trials)]
    for which in ("frames", "sequences"):
        held = np.mean([getattr(one, which).low <= 0.1 <= getattr(one, which).high for one in found])
        assert LEVEL - 0.04 <= held <= LEVEL + 0.03
    # Teeth: the same check fails for frames drawn one by one, whatever sequence they are of.
    plain = [_plain_interval(one, seed) for seed, one in enumerate(trials[:100])]
    assert np.mean([low <= 0.1 <= high for low, high in plain]) < 0.5


def test_blocks_hold_the_truth_of_one_sequence() -> None:
    held = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=82)
        alike = np.convolve(noise, np.ones(3) / 3, "valid")  # neighbouring frames
        one = estimate([0.1 + alike], samples=1000, seed=seed).frames
        held += one.low <= 0.1 <= one.high
    assert LEVEL - 0.04 <= held / 200 <= LEVEL + 0.04
