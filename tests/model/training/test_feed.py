import functools
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from model.training import feed as feeding
from model.training.feed import Transfer, feed
from pipeline.clips import Sample, batches
from pipeline.errors import StoreError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Numbers:
    """A source whose samples are full of their running number."""

    def __init__(self, size: int = 8) -> None:
        self.size = size

    def draw(self, number: int, seed: int) -> int:
        return number

    def room(self, batch_size: int, *, pinned: bool = False) -> Sample:
        return Sample(
            *(
                torch.empty((batch_size, self.size), dtype=torch.int32, pin_memory=pinned)
                for _ in Sample._fields
            )
        )

    def read_into(self, number: int, batch: Sample, place: int) -> None:
        if number < 0:
            raise StoreError("damaged shard")
        for part in batch:
            part[place] = number


def reader(source: Any, **changes: Any) -> Any:
    settings = {"seed": 0, "start_step": 0, "batch_size": 2, "workers": 2}
    return functools.partial(batches, source, **(settings | changes))


class Late(NamedTuple):
    batch: Sample
    copy: Sample


class SlowStream:
    """A transfer that copies nothing before it has to: at any time between sending and receiving."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._queue: list[Late] = []
        self._lock = threading.Lock()
        self._random = random.Random(0)

    def send(self, batch: Sample) -> Late:
        late = Late(batch, Sample(*(torch.zeros_like(part) for part in batch)))
        with self._lock:
            self._queue.append(late)
            for _ in range(self._random.randrange(3)):
                self._copy()
        return late

    def receive(self, late: Late) -> Sample:
        with self._lock:
            while any(late is queued for queued in self._queue):
                self._copy()
        return late.copy

    def _copy(self) -> None:
        if self._queue:
            late = self._queue.pop(0)
            for target, part in zip(late.copy, late.batch, strict=True):
                target.copy_(part)


@pytest.fixture
def slow_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is a CPU with copies that take their time."""
    monkeypatch.setattr(feeding, "Transfer", SlowStream)
    room = Numbers.room
    monkeypatch.setattr(Numbers, "room", lambda self, size, pinned=False: room(self, size))


def numbers_of(stream: Iterator[Sample], count: int) -> list[list[int]]:
    taken = list(itertools.islice(stream, count))
    assert all(bool((part == part[:, :1]).all()) for batch in taken for part in batch)
    assert all(torch.equal(batch.blurry, part) for batch in taken for part in batch)
    stream.close()  # type: ignore[attr-defined]
    return [batch.blurry[:, 0].tolist() for batch in taken]


def test_a_cpu_gets_the_batches_themselves() -> None:
    given = iter(())
    assert feed(CPU, lambda: given) is given


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_batches_come_whole_and_in_order_however_late_they_are_copied(
    slow_stream: None, workers: int, batch_size: int, accumulate: int
) -> None:
    read = reader(Numbers(), batch_size=batch_size, accumulate=accumulate, workers=workers)
    found = numbers_of(feed(CUDA, read), 40)
    assert found == np.arange(40 * batch_size).reshape(40, batch_size).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_reading_and_of_copying_pass_through(
    slow_stream: None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader(Numbers(), start_step=-1, workers=workers)
    with pytest.raises(StoreError, match="damaged shard"):
        next(feed(CUDA, read))

    def fail(*_: Any) -> Any:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(SlowStream, "send", fail)
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(feed(CUDA, reader(Numbers(), workers=workers)))


def test_closing_it_ends_the_threads(slow_stream: None) -> None:
    before = set(threading.enumerate())
    stream = feed(CUDA, reader(Numbers(), workers=3))
    next(stream)
    assert set(threading.enumerate()) > before
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before


@needs_cuda
@pytest.mark.parametrize("workers", [0, 3])
def test_a_device_gets_what_was_read_although_it_is_behind(workers: int) -> None:
    stream = feed(CUDA, reader(Numbers(1 << 20), workers=workers))
    wanted, sums = [], []
    for step, batch in enumerate(itertools.islice(stream, 30)):
        torch.cuda._sleep(20_000_000)  # the host runs ahead, and batches are let go of before they are used
        sums.append(torch.stack([part.double().sum() for part in batch]))
        wanted.append([float((4 * step + 1) * (1 << 20))] * 3)
        del batch
    assert torch.stack(sums).tolist() == wanted
    stream.close()  # type: ignore[attr-defined]


@needs_cuda
def test_a_batch_is_copied_beside_what_is_computed_and_nobody_waits() -> None:
    transfer = Transfer(CUDA)
    host = Numbers(1 << 20).room(2, pinned=True)
    transfer.receive(transfer.send(host))  # what is done once: memory, a stream
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(2_000_000_000)
        busy = torch.cuda.current_stream().record_event()
        sent = transfer.send(host)
        transfer.receive(sent)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    sent.arrived.synchronize()
    assert not busy.query()
    torch.cuda.synchronize()


@needs_cuda
def test_page_locked_memory_is_given_again() -> None:
    stream = feed(CUDA, reader(Numbers(1 << 20)))
    for _ in itertools.islice(stream, 10):
        torch.cuda.synchronize()
    before = torch.cuda.host_memory_stats()["num_host_alloc"]
    for _ in itertools.islice(stream, 20):
        torch.cuda.synchronize()
    assert torch.cuda.host_memory_stats()["num_host_alloc"] == before
    stream.close()  # type: ignore[attr-defined]
