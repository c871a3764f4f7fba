"""The device that a run computes on, and its memory."""

from dataclasses import dataclass

import torch

from pipeline.machine import memory, processors


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A CUDA device, or the processors with main memory.

    Attributes:
        kind: cpu or cuda.
        free_bytes: of its `total_bytes`, what this process could take; the driver's own share is not free.
    """

    kind: str
    name: str
    total_bytes: int
    free_bytes: int


def device_of(device: torch.device) -> Device:
    """Ask about a device; a CUDA device is taken into use."""
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the driver takes its share with the first tensor
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Device(kind="cuda", name=name, total_bytes=total, free_bytes=free)
    main = memory()
    return Device(
        kind="cpu",
        name=f"CPU, {processors().worth} threads",
        total_bytes=min(main.total, main.limit or main.total),
        free_bytes=main.available,
    )
