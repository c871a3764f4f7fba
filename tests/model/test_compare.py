import logging

import pytest

from model.compare import CompareConfig, compare
from pipeline.errors import UsageError

SCORES = {"s1": [30, 31, 32], "s2": [28, 29, 27]}


def test_compares_two_methods_of_one_evaluation(scored_run) -> None:
    run = scored_run("a", SCORES)
    file = run / "eval" / "rgb8-all" / "per_frame.csv"
    others = [
        f"rgb8-all,test,{name},{i:04d},{i},rgb_only,{value - 1},0.8"
        for name, values in SCORES.items()
        for i, value in enumerate(values)
    ]
    file.write_text(file.read_text() + "\n".join(others) + "\n")
    found = compare(run, run, CompareConfig(against="rgb_only"))
    assert found.difference.mean == 1 and found.to_json()["a"]["method"] == "rgb_only"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "val"}, "A is of split test .*, B of split val"),
        ({"fingerprint": "other"}, r"A was evaluated on STORE \(same\), B on STORE \(other\)"),
    ],
)
def test_refuses_evaluations_of_other_data(changes: dict[str, str], words: str, scored_run) -> None:
    a, b = scored_run("a", SCORES), scored_run("b", SCORES, **changes)
    with pytest.raises(UsageError, match=words):
        compare(a, b)


def test_refuses_files_of_other_protocols(scored_run) -> None:
    a, b = scored_run("a", SCORES), scored_run("b", SCORES, protocol="kair")
    with pytest.raises(UsageError, match="A is of protocol rgb8-all"):
        compare(a / "eval" / "rgb8-all", b / "eval" / "kair")


def test_refuses_other_frames_unless_told_to_take_the_common_ones(
    scored_run, caplog: pytest.LogCaptureFixture
) -> None:
    a = scored_run("a", SCORES | {"s3": [30]})
    b = scored_run("b", {"s1": [31, 32, 33], "s2": [29, "", 28, 28]}, fingerprint="other")
    with pytest.raises(UsageError, match="A was evaluated on"):
        compare(a, b)
    scored_run("b", {"s1": [31, 32, 33], "s2": [29, "", 28, 28]})
    with pytest.raises(
        UsageError, match=r"2 frames only A has, as s2/0001; 1 frames only B has, as s2/0003"
    ) as error:
        compare(a, b)
    assert "--common" in error.value.fix
    with caplog.at_level(logging.WARNING):
        found = compare(a, b, CompareConfig(common=True))
    assert found.left_out == {"a": 2, "b": 1, "undefined": 0}
    assert "2 frames only A has" in caplog.text
    assert found.differences.tolist() == [1] * 5


def test_frames_defined_in_neither_are_counted(scored_run) -> None:
    a, b = ({"s1": [30 + i, 30, ""], "s2": [30] * 9} for i in (0, 1))
    assert compare(scored_run("a", a), scored_run("b", b)).left_out == {"a": 0, "b": 0, "undefined": 1}


def test_says_when_it_cannot_know_the_store(scored_run, caplog: pytest.LogCaptureFixture) -> None:
    a, b = scored_run("a", SCORES), scored_run("b", SCORES, fingerprint=None)
    compare(a, b)
    assert "no summary.json beside it" in caplog.text


def test_refuses_frames_without_a_finite_value(scored_run) -> None:
    a, b = scored_run("a", {"s1": ["inf", ""]}), scored_run("b", {"s1": [30, ""]})
    with pytest.raises(UsageError, match="no frame of which both have a finite psnr"):
        compare(a, b)


@pytest.mark.parametrize(
    ("metric", "better"),
    [("psnr_y", "higher"), ("psnr_reblur", "higher"), ("ssim", "higher"), ("lpips", "lower")],
)
def test_knows_which_values_are_better(metric: str, better: str) -> None:
    assert CompareConfig(metric=metric).direction == better


def test_asks_which_values_are_better_of_other_metrics(scored_run) -> None:
    run = scored_run("a", SCORES)
    with pytest.raises(UsageError, match="whether more of respike is better is not known"):
        compare(run, run, CompareConfig(metric="respike"))
    assert CompareConfig(metric="respike", better="lower").direction == "lower"


def test_of_a_metric_that_is_best_in_between_it_is_said_so() -> None:
    with pytest.raises(UsageError, match="spikes is best at 1") as error:
        _ = CompareConfig(metric="spikes").direction
    assert "--better" in error.value.fix
    assert CompareConfig(metric="spikes", better="higher").direction == "higher"
