"""Listeners whose disk may fill up or fail: what they cannot write is said, and training goes on."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from model.training.events import Listener, StepMetrics, Validation
from pipeline.clips import Sample

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def tolerant_threads() -> Iterator[None]:
    """Log an OSError that ends a thread in one line inside: TensorBoard writes in one of its own."""
    before = threading.excepthook

    def log(failure: threading.ExceptHookArgs) -> None:
        if isinstance(failure.exc_value, OSError):
            logger.error("a thread cannot write: %s; training goes on", failure.exc_value)
        else:
            before(failure)

    threading.excepthook = log
    try:
        yield
    finally:
        threading.excepthook = before


class Tolerant(Listener):
    """Tells another listener everything, and logs its first OSError of each series instead of passing it on.

    Checkpoints are no listener's matter: one that cannot be written is the trainer's to judge.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._failing = False

    def on_step(self, metrics: StepMetrics) -> None:
        """Pass it on."""
        self._tell(self.listener.on_step, metrics)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Pass it on."""
        self._tell(self.listener.on_validation, step, validation, is_best)

    def on_pictures(self, step: int, network: nn.Module) -> None:
        """Pass it on."""
        self._tell(self.listener.on_pictures, step, network)

    def on_checkpoint(self, step: int) -> None:
        """Pass it on."""
        self._tell(self.listener.on_checkpoint, step)

    def on_saved(self, step: int, is_best: bool) -> None:
        """Pass it on."""
        self._tell(self.listener.on_saved, step, is_best)

    def on_failure(self, step: int, batches: Sequence[Sample]) -> None:
        """Pass it on."""
        self._tell(self.listener.on_failure, step, batches)

    def close(self) -> None:
        """Close the listener, if it is one to close."""
        self._tell(getattr(self.listener, "close", lambda: None))

    def _tell(self, what: Callable[..., None], *about: object) -> None:
        try:
            what(*about)
        except OSError as error:
            if not self._failing:
                logger.error("%s cannot write: %s; training goes on", type(self.listener).__name__, error)
            self._failing = True
        else:
            self._failing = False
