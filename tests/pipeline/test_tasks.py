import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import FormatError, UsageError
from pipeline.reports import no_progress
from pipeline.tasks import run_all

HERE = {"scheduler": None, "progress": no_progress, "what": "items"}


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_order_and_progress_counts_up(workers):
    told = []
    results = run_all(
        lambda n: time.sleep(0.01 * (n % 2)) or n * n,
        range(9),
        workers=workers,
        scheduler=None,
        progress=lambda *news: told.append(news),
        what="squares",
    )
    assert results == [n * n for n in range(9)]
    assert told == [(done, 9, "squares") for done in range(10)]


def test_items_arrive_as_they_are():
    items = [("item-0", {"item-1": (Path("x"),)}), "item-0", [len], 0]
    assert run_all(lambda item: item, items, workers=2, **HERE) == items
    assert run_all(lambda item: item, [], workers=2, **HERE) == []


def test_works_side_by_side():
    meeting = threading.Barrier(3, timeout=10)
    run_all(lambda _: meeting.wait(), range(3), workers=3, **HERE)


def test_the_first_error_stops_the_rest_and_leaves_nothing_running():
    started, running, at_error = [], set(), []

    def work(number):
        started.append(number)
        running.add(number)
        try:
            if len(started) == 10:
                at_error.append(len(started))
                raise FormatError("bad item")
            time.sleep(0.6 if len(started) > 7 else 0.01)
        finally:
            running.discard(number)

    with pytest.raises(FormatError, match="bad item"):
        run_all(work, range(50), workers=3, **HERE)
    assert not running and at_error
    assert len(started) <= at_error[0] + 6


def test_refuses_no_workers():
    with pytest.raises(UsageError, match="workers: 0"):
        run_all(len, [""], workers=0, **HERE)


def test_an_unknown_scheduler_is_a_usage_error():
    with pytest.raises(UsageError, match="--scheduler not-a-scheme"):
        run_all(len, [""], workers=1, scheduler="not-a-scheme://x:1", progress=no_progress, what="items")
