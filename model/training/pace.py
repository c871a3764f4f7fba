"""Where the time of a training loop goes."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator


class Pace:
    """Counts steps and seconds since the last lap, and how many of the seconds were spent waiting for data."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._pauses: Counter[str] = Counter()
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._left_out, self._steps = time.perf_counter(), 0.0, 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside is spent waiting for data."""
        entered = time.perf_counter()
        yield
        self._waited += time.perf_counter() - entered

    @contextlib.contextmanager
    def paused(self, what: str = "") -> Iterator[None]:
        """The time inside does not count; it goes to `what`."""
        entered = time.perf_counter()
        yield
        spent = time.perf_counter() - entered
        self._left_out += spent
        self._pauses[what] += spent

    def pause_share(self, what: str) -> float:
        """The share that pauses for `what` have of all the time since the beginning."""
        return self._pauses[what] / max(time.perf_counter() - self._began, 1e-9)

    def done(self) -> None:
        """One more step is done."""
        self._steps += 1

    def lap(self) -> tuple[float, float]:
        """Steps a second, and the share of the seconds spent waiting; the next lap begins."""
        seconds = max(time.perf_counter() - self._start - self._left_out, 1e-9)
        rates = self._steps / seconds, min(self._waited / seconds, 1.0)
        self._restart()
        return rates
