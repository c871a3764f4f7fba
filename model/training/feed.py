"""How batches get from the threads that read them to the device that learns from them.

On a CUDA device nobody waits: the threads read into page-locked memory, and the one that completes a batch queues its
copy on a stream beside the one that computes. The step that wants the batch makes only the device wait for the copy,
which was done while the step before computed.
"""

import contextlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import torch

from pipeline.clips import Sample


class Sent(NamedTuple):
    """A batch on a device, and the event after which it is there."""

    batch: Sample
    arrived: torch.cuda.Event


def feed(
    device: torch.device, read: Callable[..., Generator[Any, None, None]]
) -> Generator[Sample, None, None]:
    """Batches on `device`; for a CPU those that are read, as they are.

    Args:
        read: gives batches when it is called, with `pinned` and `deliver` of `pipeline.clips.read_ahead` or without.

    Returns:
        A generator; to close it ends the threads that read.
    """
    return _copied(Transfer(device), read) if device.type == "cuda" else read()


def _copied(
    transfer: "Transfer", read: Callable[..., Generator[Sent, None, None]]
) -> Generator[Sample, None, None]:
    with contextlib.closing(read(pinned=True, deliver=transfer.send)) as sent:
        for batch in sent:
            yield transfer.receive(batch)


class Transfer:
    """Copies batches to a CUDA device on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, batch: Sample) -> Sent:
        """Queue the copy of a batch in page-locked memory, which is not given to others before the copy is done."""
        with torch.cuda.stream(self._stream):
            copy = Sample(*(part.to(self._device, non_blocking=True) for part in batch))
            return Sent(copy, self._stream.record_event())

    def receive(self, sent: Sent) -> Sample:
        """The batch, which is there for all that is queued on the current stream from now on."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(sent.arrived)
        for part in sent.batch:
            part.record_stream(stream)  # another copy gets its memory when this stream is done with it
        return sent.batch
