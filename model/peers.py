"""The other processes of a run: noticing that one is gone, and ending in time when nothing else would.

A process that is killed leaves the others inside an operation that waits for it: gloo then fails at once, NCCL only
after `parallel.timeout_s`, and not even a signal reaches Python until then. So every process holds a connection to
every other one, over which nothing is ever said but good-bye: when it closes before that, the other is gone.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)

GRACE_S = 15.0
"""Seconds that a process has to end by itself once it cannot go on."""

_FOREVER = timedelta(days=10_000)
_EXIT_FAILED = 1


class Peers:
    """The other processes of the default process group.

    Every process of the group must make one, and at the end either call `part` or end.

    Args:
        grace_s: seconds from the loss of another process until this one is ended by force.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.lost: set[int] = set()
        self._grace_s = grace_s
        self._group = dist.new_group(backend="gloo", timeout=_FOREVER)
        self._others = [rank for rank in range(dist.get_world_size()) if rank != dist.get_rank()]
        self._changed = threading.Condition()
        self._left = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(rank,), daemon=True) for rank in self._others
        ]
        for thread in self._threads:
            thread.start()

    def part(self) -> None:
        """Say good-bye, and wait for everyone's, or for their end: from now on nobody is missed."""
        self._left.set()
        for rank in self._others:
            with contextlib.suppress(RuntimeError):  # it is gone already, which its own message explains
                dist.send(torch.zeros(1), rank, group=self._group)
        for thread in self._threads:
            thread.join()

    def give_up(self) -> None:
        """Do without a good-bye: this process is about to end."""
        self._left.set()

    def wait_for_loss(self, seconds: float) -> set[int]:
        """The processes known to be gone, after waiting up to `seconds` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self.lost), seconds)
            return set(self.lost)

    def _watch(self, rank: int) -> None:
        try:
            dist.recv(torch.zeros(1), rank, group=self._group)
        except RuntimeError:
            with self._changed:
                self.lost.add(rank)
                self._changed.notify_all()
            if not self._left.wait(self._grace_s):
                end_now(f"process {rank} of the run is gone, and this one waits for it in vain")


@contextlib.contextmanager
def within(seconds: float, problem: str) -> Iterator[None]:
    """End the process if what is done inside takes longer, saying `problem`."""
    timer = threading.Timer(seconds, end_now, (problem,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end_now(problem: str) -> None:
    """End this process at once, whatever it is doing, with exit code 1."""
    logger.error("process %d: %s", int(os.environ.get("RANK", "0")), problem)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(_EXIT_FAILED)
