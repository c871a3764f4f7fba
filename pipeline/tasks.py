"""Running many independent pieces of work on Dask: threads here, or an existing distributed cluster."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.cluster import run_on_cluster
from pipeline.errors import UsageError
from pipeline.reports import Progress

A = TypeVar("A")
B = TypeVar("B")


def run_all(
    function: Callable[[A], B],
    items: Sequence[A],
    *,
    workers: int,
    scheduler: str | None,
    progress: Progress,
    what: str,
) -> list[B]:
    """Call `function` on every item and return the results in order; the first error stops the rest.

    When this returns or raises, nothing is still running here. Threads are enough: decoding, counting, checksums and
    writing release the interpreter lock.

    Args:
        function: importable by name, for workers in other processes.
        workers: threads on this machine, where no scheduler is given.
        scheduler: address of a Dask scheduler, "tcp://host:port".
        what: says in progress reports what the items are.

    Raises:
        UsageError: fewer than one worker, or no scheduler at that address.
        ClusterError: the cluster does not get to the end.
    """
    if workers < 1:
        raise UsageError(f"workers: {workers} is less than one")
    if not items:
        return []
    progress(0, len(items), what)
    if scheduler is not None:
        return run_on_cluster(function, items, scheduler, progress, what)
    return _on_threads(function, items, workers, progress, what)


def _on_threads(
    function: Callable[[A], B], items: Sequence[A], workers: int, progress: Progress, what: str
) -> list[B]:
    from dask.callbacks import Callback
    from dask.threaded import get

    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        progress(done, len(items), what)

    def call(number: int) -> B:
        return function(items[number])

    # Numbers, not items, are in the graph: Dask would look into every field of every item for more graph.
    keys = [f"item-{number}" for number in range(len(items))]
    graph = {key: (call, number) for number, key in enumerate(keys)}
    # A pool of our own is empty when we leave; one of Dask's would go on writing after an error.
    with ThreadPoolExecutor(workers) as pool, Callback(posttask=count):
        return list(get(graph, keys, pool=pool, num_workers=workers))
