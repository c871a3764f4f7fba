"""Running pieces of work on an existing Dask cluster, whose workers and scheduler may die at any time.

A piece may run more than once, as Dask repeats what a lost worker did. Whatever happens, this ends: with all results
or with an error, after which no worker that can be reached is still at a piece.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ClusterError, UsageError
from pipeline.reports import Progress

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger(__name__)

CONNECT_S = 10
LOST_S = 10
"""How long the scheduler may not answer."""
NO_WORKERS_S = 60
"""How long to wait for the first worker."""
WORKERS_GONE_S = 15
"""How long a cluster may be without workers that had some: they may be started again."""
STOPPING_S = 60
"""How long to wait, after an error, for pieces that are being worked on."""
POLL_S, WATCH_S, STILL_S = 0.02, 1.0, 0.1
MOST_SHOWN = 200


def run_on_cluster(
    function: Callable[[A], B], items: Sequence[A], scheduler: str, progress: Progress, what: str
) -> list[B]:
    """Call `function` on every item on the workers of a cluster, and return the results in order.

    Args:
        function: importable by name on the workers; called again on an item whose worker died.
        scheduler: address, "tcp://host:port".
        what: says in progress reports what the items are.

    Raises:
        UsageError: no scheduler at that address.
        ClusterError: the scheduler or all workers are gone, or an item ended every worker that tried it.
    """
    client = _connect(scheduler)
    try:
        watch = _Watch(client)  # first: a piece may end all workers before anybody has looked
        futures = client.map(function, items, pure=False, key=what.replace(" ", "-"))
        try:
            return _results(client, futures, items, watch, progress, what)
        except BaseException:
            _stop(client, futures)
            raise
    finally:
        with contextlib.suppress(OSError):
            client.close(timeout=CONNECT_S)


def _connect(scheduler: str) -> "Client":
    from distributed import Client

    try:
        return Client(scheduler, timeout=f"{CONNECT_S}s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: cannot connect: {error}", "start it with: dask scheduler"
        ) from error


def _results(
    client: "Client",
    futures: Sequence["Future"],
    items: Sequence[A],
    watch: "_Watch",
    progress: Progress,
    what: str,
) -> list[Any]:
    from distributed import as_completed

    numbers = {future.key: number for number, future in enumerate(futures)}
    results: dict[int, Any] = {}
    completed = as_completed(futures, loop=client.loop, with_results=True, raise_errors=False)
    while len(results) < len(items):
        batch = completed.next_batch(block=False)
        for future, result in batch:
            number = numbers[future.key]
            if future.status != "finished":
                raise _failure(future, result, items[number], watch)
            results[number] = result
            progress(len(results), len(items), what)
        if not batch:
            watch.look()
            time.sleep(POLL_S)
    return [results[number] for number in range(len(items))]


class _Watch:
    """Sees to it that somebody is still at work."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._address = client.scheduler.address
        self._had_workers = False
        self._seen = time.monotonic()
        self._looked = -WATCH_S
        self.look()

    def look(self) -> None:
        """Ask the scheduler for its workers, every now and then.

        Raises:
            ClusterError: it does not answer, or has had none for too long.
        """
        now = time.monotonic()
        if now - self._looked < WATCH_S:
            return
        self._looked = now
        if self._client.status != "running":
            raise self.lost()
        try:
            workers = self._client.sync(self._client.scheduler.ncores, callback_timeout=LOST_S)
        except OSError as error:
            raise self.lost() from error
        if workers:
            self._had_workers, self._seen = True, now
        elif now - self._seen > (WORKERS_GONE_S if self._had_workers else NO_WORKERS_S):
            gone = "all its workers are gone" if self._had_workers else "it has no workers"
            raise ClusterError(
                f"--scheduler {self._address}: {gone}, for {now - self._seen:.0f} s now; a piece may have ended them,"
                " by taking more memory than there is",
                f"see what the workers said, start some with: dask worker {self._address}; then run the command again,"
                " which goes on where it stopped",
            )

    def lost(self) -> ClusterError:
        """The error of a scheduler that went away."""
        return ClusterError(
            f"--scheduler {self._address}: the connection is lost",
            "start scheduler and workers again; then run the command again, which goes on where it stopped",
        )


def _failure(future: "Future", result: Any, item: object, watch: _Watch) -> BaseException:
    """What to raise for a piece that has no result."""
    from distributed import KilledWorker

    if future.status != "error" or not isinstance(result, tuple):
        return watch.lost()
    error: BaseException = result[1]
    if isinstance(error, KilledWorker):
        return ClusterError(
            f"{str(item)[:MOST_SHOWN]}: every worker that tried this died, the last one at"
            f" {getattr(error.last_worker, 'address', error.last_worker)}",
            "see what it said last; if it ran out of memory, give workers more, or fewer --nthreads",
        )
    if isinstance(error, ImportError):
        return ClusterError(
            f"a worker lacks what spk needs: {error}",
            "install the same spk there as here, and start it again",
        )
    return error


def _stop(client: "Client", futures: Sequence["Future"]) -> None:
    """Give up what is not begun, and wait until nobody is at what is: the next command may write the same files."""
    with contextlib.suppress(OSError, RuntimeError):  # the scheduler may go away now
        if client.status == "running" and _stopped(client, futures):
            return
    log.warning("workers may still be writing: stop them before you run another command on the same store")


def _stopped(client: "Client", futures: Sequence["Future"]) -> bool:
    client.cancel(list(futures))
    deadline, still = time.monotonic() + STOPPING_S, 0
    keys = [future.key for future in futures]
    while still < 2 and time.monotonic() < deadline:  # twice: a piece may be on its way to a worker
        at_work = client.run(_num_at_work, keys, on_error="ignore")
        still = 0 if any(at_work.values()) else still + 1
        time.sleep(STILL_S)
    return still == 2


def _num_at_work(keys: Sequence[str], dask_worker: "Worker") -> int:
    """How many of these pieces a worker is at or has before it, cancelled or not."""
    found = (dask_worker.state.tasks.get(key) for key in keys)
    return sum(task is not None and task.state not in ("memory", "error", "released") for task in found)
