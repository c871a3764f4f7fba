import numpy as np
import pytest

from model.compare import CompareConfig, compare
from model.evaluation.comparison import Comparison
from pipeline.errors import UsageError, WorseError

FEW = CompareConfig(samples=1000)
LEVELS = (30.0, 33.0, 28.0, 31.0)


def sequences(shift: float, spread: float = 0.0, seed: int = 0) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {
        f"s{i}": [level + shift + spread * rng.normal() + 0.1 * frame for frame in range(6)]
        for i, level in enumerate(LEVELS)
    }


@pytest.fixture
def compared(scored_run):
    def run(a, b, config: CompareConfig = FEW, **changes: object) -> Comparison:
        return compare(scored_run("a", a), scored_run("b", b, **changes), config)

    return run


def test_every_number_by_hand(compared) -> None:
    found = compared({"s1": [30, 31, 32], "s2": [20]}, {"s1": [31, 31, 31], "s2": [24]}).to_json()
    assert (found["frames"], found["sequences"], found["averaging"]) == (4, 2, "frames")
    assert found["difference"]["frames"]["mean"] == pytest.approx(1)
    assert found["difference"]["sequences"]["mean"] == pytest.approx(2)
    assert found["shares"] == {"won": 0.5, "tied": 0.25, "lost": 0.25}
    first, second = found["per_sequence"]
    assert (first["a"], first["b"], first["difference"]["mean"]) == (31, 31, 0)
    assert (second["frames"], second["won"]) == (1, 1.0)
    assert found["verdict"] == "too few frames to tell" and found["difference"]["frames"]["low"] is None


def test_the_protocols_own_mean_decides(compared) -> None:
    a = {"s1": [30.0] * 90, "s2": [20.0] * 9, "s3": [20.0] * 9}
    b = {"s1": [29.9] * 90, "s2": [21.0] * 9, "s3": [21.0] * 9}
    by_frames, by_sequences = compared(a, b), compared(a, b, averaging="sequences")
    assert by_frames.difference.mean == pytest.approx((-9 + 18) / 108)
    assert by_sequences.difference.mean == pytest.approx((-0.1 + 2) / 3)


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [(0.2, 0.02, "better"), (-0.2, 0.02, "worse"), (0.01, 0.5, "not told from chance"), (0, 0, "equal")],
)
def test_verdicts(shift: float, spread: float, verdict: str, compared) -> None:
    assert compared(sequences(0), sequences(shift, spread)).verdict == verdict


def test_less_is_better_where_it_is(compared) -> None:
    config = CompareConfig(samples=1000, better="lower")
    found = compared(sequences(0), sequences(0.2), config)
    assert found.verdict == "worse" and found.shares["lost"] == 1
    with pytest.raises(WorseError):
        found.check(0.05)


def test_the_gate_sees_a_loss_without_noise_and_forgives_noise(compared) -> None:
    with pytest.raises(
        WorseError, match=r"worse than A by more than 0.05 dB psnr.*-0.0600 dB \[-0.0600, -0.0600\]"
    ):
        compared(sequences(0), sequences(-0.06)).check(0.05)
    compared(sequences(0), sequences(-0.04)).check(0.05)  # less than allowed, though no chance
    noisy = compared(sequences(0), sequences(-0.1, 1.0, seed=2))
    assert noisy.difference.mean < -0.05  # more than allowed, but by chance
    noisy.check(0.05)
    compared(sequences(0), sequences(0)).check(0.0)
    compared(sequences(0), sequences(0.2)).check(0.0)


def test_the_gate_does_not_pass_what_it_cannot_tell(compared) -> None:
    with pytest.raises(UsageError, match="3 frames of 1 sequences are too few"):
        compared({"s1": [30, 31, 32]}, {"s1": [29, 30, 31]}).check(0.05)


def test_frames_that_one_alone_restores_exactly_are_counted_and_in_no_mean(compared) -> None:
    a = {"s1": ["30", "inf", "inf", "31"], "s2": ["30"] * 4, "s3": ["inf"] * 4}
    b = {"s1": ["31", "inf", "40", "inf"], "s2": ["31"] * 4, "s3": ["50"] * 4}
    found = compared(a, b)
    assert found.infinite == {"a": 5, "b": 1}
    assert found.compared == ("s1", "s2")
    assert found.estimates.per_sequence[0].mean == pytest.approx(0.5)  # 1 and, of two infinities, 0
    assert found.shares == {"won": 6 / 12, "tied": 1 / 12, "lost": 5 / 12}
    assert found.to_json()["per_sequence"][2]["difference"] is None
    with pytest.raises(UsageError, match="5 frames are restored exactly by A and not by B"):
        found.check(0.05)


def test_exact_frames_of_b_alone_do_not_fail_the_gate(compared) -> None:
    b = sequences(0.1)
    b["s1"][2] = "inf"
    compared(sequences(0), b).check(0.05)
