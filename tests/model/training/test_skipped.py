import logging
from typing import Any

import pytest

from model.training.skipped import SkippedSteps, is_said


class FakeClips:
    def __init__(self, count: int) -> None:
        self.count = count

    def names(self, step: int) -> list[str]:
        return [f"train/a {step + i}..{step + i + 1}" for i in range(self.count)]


def test_says_the_first_few_and_records_all(caplog: pytest.LogCaptureFixture) -> None:
    recorded: list[Any] = []
    skipped = SkippedSteps(FakeClips(1), recorded.append)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for step in range(1000):
            skipped.on_skipped(step, float("nan"), 1.0)
    assert [record.args[0] for record in caplog.records] == [1, 2, 3, 10, 100, 1000]
    assert "step 1 left out" in caplog.text and "loss nan, grad norm 1.0, clips train/a 0..1" in caplog.text
    assert recorded[6] == {"step": 7, "left_out": ["train/a 6..7"]} and len(recorded) == 1000


def test_a_large_batch_is_named_in_part(caplog: pytest.LogCaptureFixture) -> None:
    recorded: list[Any] = []
    SkippedSteps(FakeClips(9), recorded.append).on_skipped(0, float("inf"), 1.0)  # type: ignore[arg-type]
    assert "train/a 3..4 and 5 more" in caplog.text
    assert len(recorded[0]["left_out"]) == 9


def test_powers_of_ten_are_said() -> None:
    assert [count for count in range(1, 1200) if is_said(count)] == [1, 2, 3, 10, 100, 1000]
