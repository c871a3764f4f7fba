"""What the threads that read clips do with their time: compute, wait for a processor, or wait for a disk."""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

_SCHEDULE = "/proc/thread-self/schedstat"  # Linux: nanoseconds on a processor, and in the queue for one
_BLOCK_BYTES = 512  # of getrusage's ru_inblock


class Readings(NamedTuple):
    """What some readings took, added up over the threads that did them.

    Attributes:
        wall_s: seconds from the beginning of a reading to its end.
        cpu_s: of these, on a processor: unpacking, counting and copying.
        queued_s: of these, ready to compute while others had the processors; 0 where the system does not say.
        disk_bytes: what had to come from a disk because it was not in memory.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    queued_s: float = 0.0
    disk_bytes: int = 0

    @property
    def blocked_s(self) -> float:
        """Seconds in which a thread could not go on: waiting for a disk, a network or another thread."""
        return max(self.wall_s - self.cpu_s - self.queued_s, 0.0)


class ReaderTimes:
    """Adds up what the readings of several threads take. A reading is measured when it ends; it costs microseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = Readings()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """The time inside is a reading of this thread's."""
        before = _clocks()
        try:
            yield
        finally:
            spent = [now - then for now, then in zip(_clocks(), before, strict=True)]
            with self._lock:
                self._sum = Readings(*(a + b for a, b in zip(self._sum, spent, strict=True)))  # type: ignore[arg-type]

    def lap(self) -> Readings:
        """The readings that have ended since the last lap."""
        with self._lock:
            lap, self._sum = self._sum, Readings()
        return lap


def _clocks() -> tuple[float, float, float, int]:
    disk_bytes = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock * _BLOCK_BYTES
    return time.perf_counter(), time.thread_time(), _OF_THREAD.queued_s(), disk_bytes


class _Queue(threading.local):
    """This thread's account with the scheduler, kept open: to open it takes longer than to read it."""

    def __init__(self) -> None:
        self._file = None
        with contextlib.suppress(OSError):
            self._file = open(_SCHEDULE, "rb", buffering=0)  # noqa: SIM115 - closed when the thread ends

    def queued_s(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file.fileno(), 80, 0).split()[1]) * 1e-9


_OF_THREAD = _Queue()
