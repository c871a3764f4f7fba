"""Running many independent pieces of work on Dask: threads here, or an existing distributed cluster."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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

    Threads are enough: decoding, counting, checksums and writing release the interpreter lock.

    Args:
        function: importable by name, for workers in other processes.
        workers: threads on this machine, where no scheduler is given.
        scheduler: address of a Dask scheduler, "tcp://host:port".
        what: says in progress reports what the items are.

    Raises:
        UsageError: fewer than one worker, or no scheduler at that address.
    """
    if workers < 1:
        raise UsageError(f"workers: {workers} is less than one")
    if not items:
        return []
    progress(0, len(items), what)
    if scheduler is not None:
        return _on_cluster(function, items, scheduler, progress, what)
    return _on_threads(function, items, workers, progress, what)


def _on_threads(
    function: Callable[[A], B], items: Sequence[A], workers: int, progress: Progress, what: str
) -> list[B]:
    import dask
    from dask.callbacks import Callback

    done = 0

    def count(key: Any, result: Any, *_: Any) -> None:
        nonlocal done
        done += 1
        progress(min(done, len(items)), len(items), what)

    tasks = [dask.delayed(function, pure=False)(item) for item in items]
    with Callback(posttask=count):
        return list(dask.compute(*tasks, scheduler="threads", num_workers=workers, optimize_graph=False))


def _on_cluster(
    function: Callable[[A], B], items: Sequence[A], scheduler: str, progress: Progress, what: str
) -> list[B]:
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: cannot connect: {error}", "start it with: dask scheduler"
        ) from error
    with client:
        futures = client.map(function, items, pure=False)
        for done, future in enumerate(as_completed(futures), start=1):
            if future.status == "error":
                client.cancel(futures)
                future.result()
            progress(done, len(items), what)
        return list(client.gather(futures))
