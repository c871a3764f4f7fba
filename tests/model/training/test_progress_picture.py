import logging
from dataclasses import replace
from pathlib import Path

import pytest

from model.training.events import Validation
from model.training.progress_picture import FEWEST_STEPS, FIRST_SECONDS, ProgressPicture
from tests.model.training.test_metrics_file import METRICS


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a picture was drawn, each of which takes two seconds."""
    found: list[float] = []

    def draw(run: Path, picture: Path) -> None:
        assert picture == run / "progress.png"
        found.append(Clock.now)
        Clock.now += 2.0

    monkeypatch.setattr("model.training.progress_picture.draw_run", draw)
    monkeypatch.setattr(Clock, "now", 0.0)
    return found


def test_takes_no_more_than_a_hundredth_of_the_time(drawn: list[float], tmp_path: Path) -> None:
    picture = ProgressPicture(tmp_path, Clock())
    picture.on_step(METRICS)
    for second in range(1000):
        Clock.now = max(Clock.now, float(second))
        picture.on_validation(1, Validation(30.0, 1), False)
        picture.on_saved(1, False)
    assert drawn == [FIRST_SECONDS, 262, 464, 666, 868]
    picture.close()
    assert len(drawn) == 6


def test_a_few_steps_are_not_worth_a_picture(drawn: list[float], tmp_path: Path) -> None:
    picture = ProgressPicture(tmp_path, Clock())
    picture.close()
    picture.on_step(replace(METRICS, step=FEWEST_STEPS - 1))
    picture.close()
    assert not drawn
    picture.on_step(replace(METRICS, step=FEWEST_STEPS))
    picture.close()
    assert len(drawn) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_picture_that_fails_is_told_and_ends_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Path, picture: Path) -> None:
        raise error

    monkeypatch.setattr("model.training.progress_picture.draw_run", fail)
    picture = ProgressPicture(tmp_path, Clock())
    picture.on_step(METRICS)
    with caplog.at_level(logging.WARNING):
        picture.close()
    assert "progress.png: not drawn" in caplog.text and str(error) in caplog.text
