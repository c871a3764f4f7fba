"""`progress.png` of a run, kept up to date while it learns."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from model.training.curves import draw_run
from model.training.events import Listener, StepMetrics, Validation

logger = logging.getLogger(__name__)

NAME = "progress.png"
MOST_SHARE = 0.01
"""Of the time, that may be spent on drawing."""
FIRST_SECONDS = 60
"""After which it is drawn for the first time, as drawing then begins with loading the library that does it."""
FEWEST_STEPS = 20
"""Below them curves say nothing yet."""


class ProgressPicture(Listener):
    """Draws `progress.png` when a checkpoint or a validation has something new to show, and when the run ends.

    Args:
        run: the folder; what is drawn is what its files say.
        clock: seconds, from any start.
    """

    def __init__(self, run: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.clock = clock
        self._step = 0
        self._next = clock() + FIRST_SECONDS

    def on_step(self, metrics: StepMetrics) -> None:
        """Remember how far it is."""
        self._step = metrics.step

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Draw, if it is time."""
        self._draw_if_due()

    def on_saved(self, step: int, is_best: bool) -> None:
        """Draw, if it is time."""
        self._draw_if_due()

    def close(self) -> None:
        """Draw what there is at the end."""
        self._draw()

    def _draw_if_due(self) -> None:
        if self.clock() >= self._next:
            self._draw()

    def _draw(self) -> None:
        if self._step < FEWEST_STEPS:
            return
        started = self.clock()
        try:
            draw_run(self.run, self.run / NAME)
        except Exception as error:  # whatever it is: no picture is worth a run
            logger.warning("%s: not drawn: %s: %s", self.run / NAME, type(error).__name__, error)
        ended = self.clock()
        self._next = ended + (ended - started) / MOST_SHARE
