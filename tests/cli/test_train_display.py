import io

import pytest
from rich.console import Console

from cli.train_display import TrainDisplay
from model.training.events import Validation
from tests.model.training.test_metrics_file import METRICS


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(display: TrainDisplay, width: int = 80, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(width=width, file=file, force_terminal=False)
    console.print(display)
    file.flush()
    return raw.getvalue().decode(encoding).splitlines()


@pytest.fixture
def display() -> TrainDisplay:
    """After 1200 of 300 000 steps of half a second each, with a validation and, 90 s ago, a checkpoint."""
    clock = Clock()
    display = TrainDisplay("runs/[x]", 300_000, clock)
    for step in range(1, 1201):
        clock.now += 0.5
        display.progress(step, 300_000, "loss")
        if step == 1020:
            display.on_validation(step, Validation(30.0, 4), True)
            display.on_validation(step, Validation(29.5, 4), False)
            display.on_saved(step, True)
    display.on_step(METRICS)
    return display


def test_says_at_once_that_it_is_starting() -> None:
    lines = shown(TrainDisplay("run", 9))
    assert len(lines) == 3 and "0 / 9" in lines[1] and "starting" in lines[1]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_shows_all_in_any_width_and_folds_nothing(display: TrainDisplay, width: int) -> None:
    lines = shown(display, width)
    assert {len(line) for line in lines} == {width}
    text = "\n".join(lines)
    for words in (
        *("runs/[x]", "1,200 / 300,000", "ETA 1d17h", "0.0123", "lr 2.0e-04", "grad norm 0.512", "epoch 4.5"),
        *(
            "3.4 it/s",
            "27.2 clips/s",
            "1.0 GiB",
            "compute 96%",
            "data 4%",
            "29.50",
            "best 30.00 at step 1,020",
        ),
        *("step 1,020, 1m30s ago",),
    ):
        assert words in text
    assert "left out" not in text and len(lines) == 9


def test_steps_left_out_are_told(display: TrainDisplay) -> None:
    display.on_step(
        METRICS.__class__(**{name: getattr(METRICS, name) for name in METRICS.__slots__} | {"skipped": 2})
    )
    assert "2 steps" in next(line for line in shown(display) if "left out" in line)


def test_a_terminal_without_unicode_gets_ascii(display: TrainDisplay) -> None:
    assert shown(display, 60, "ascii") and "".join(shown(display, 60, "ascii")).isascii()


def test_the_last_step_is_done() -> None:
    display = TrainDisplay("run", 2)
    display.progress(2, 2, "")
    assert "done" in shown(display)[1]


def test_a_name_does_not_command_the_terminal() -> None:
    assert "\x1b" not in "".join(shown(TrainDisplay("a\x1b[2J", 9)))
