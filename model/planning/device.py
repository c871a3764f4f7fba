"""The device that a run computes on, and its memory."""

import os
from dataclasses import dataclass

import torch

from pipeline.machine import memory, processors


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A CUDA device, or the processors with main memory.

    Attributes:
        kind: cpu or cuda.
    """

    kind: str
    name: str
    total_bytes: int


def device_of(wanted: str) -> Device:
    """The device that `parallel.device` means for this process, which is not taken into use."""
    if wanted != "cpu" and torch.cuda.is_available():
        number = min(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() - 1)
        facts = torch.cuda.get_device_properties(number)
        return Device(kind="cuda", name=facts.name, total_bytes=facts.total_memory)
    main = memory()
    total = min(main.total, main.limit or main.total)
    return Device(kind="cpu", name=f"CPU, {processors().worth} threads", total_bytes=total)


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take. A CUDA device is taken into use: the driver's share is not free."""
    if device.type == "cpu":
        return memory().available
    torch.zeros(1, device=device)
    return torch.cuda.mem_get_info(device)[0]
