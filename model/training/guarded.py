"""Listeners whose disk may fail: what is written for people to read must not end what it is about."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from model.training.events import Listener

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def guarded_threads() -> Iterator[None]:
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


class Guarded:
    """A listener whose OSErrors are said instead of raised: when writing begins to fail, and when it works again.

    It is called like the listener itself, and told everything even while it fails: there may be space again.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failed: set[str] = set()  # events that could not be written since it last worked

    def __getattr__(self, event: str) -> Callable[..., None]:
        method = getattr(self._listener, event)

        def tell(*about: Any) -> None:
            name = type(self._listener).__name__
            try:
                if event in self._failed:
                    self._listener.recover()
                method(*about)
            except OSError as error:
                if not self._failed:
                    logger.error("%s CANNOT WRITE: %s; training goes on without it", name, error)
                self._failed.add(event)
                return
            if event in self._failed:
                self._failed.clear()
                logger.warning("%s can write again", name)

        return tell
