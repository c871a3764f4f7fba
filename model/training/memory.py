"""Running out of memory: recognised where it happens, and told when nothing holds on to what was in use."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from model.parallel import Parallel
from model.shortage import is_out_of_memory

T = TypeVar("T")

ADVICE = (
    "lower clip.crop or clip.num_frames, or batch_size with optim.accumulate raised to match, or use "
    "parallel.precision=bf16, or give a budget of saved activations, network.memory_gb=…"
)
"""What can be changed, where it is not known by how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceUse:
    """Memory of a CUDA device, in bytes.

    Attributes:
        total: of the device.
        free: not in use by anyone.
        reserved: held by this process's allocator.
        allocated: of that, in use by tensors.
    """

    total: int
    free: int
    reserved: int
    allocated: int

    @property
    def elsewhere(self) -> int:
        """Held by other processes, and by CUDA itself in this one."""
        return max(self.total - self.free - self.reserved, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortage:
    """An allocation that failed.

    Attributes:
        problem: what could not be allocated, in a line.
        use: of the device at that time; None without a device.
    """

    problem: str
    use: DeviceUse | None


def attempt(work: Callable[[], T], place: Parallel) -> tuple[T | None, Shortage | None]:
    """Call `work`, and return what it returns, or the shortage of memory that ended it.

    The error itself is not handed on: with its traceback, it would keep all tensors of the failed call alive.
    """
    try:
        return work(), None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None, Shortage(problem=_in_short(error), use=device_use(place.device))


def _in_short(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    wanted = re.search(r"tried to allocate [\d.,]+ ?\w+", text, re.IGNORECASE)
    return wanted[0] if wanted else text.splitlines()[0]


def device_use(device: torch.device) -> DeviceUse | None:
    """What a CUDA device's memory is used for; None for the CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    statistics = torch.cuda.memory_stats(device)
    return DeviceUse(
        total=total,
        free=free,
        reserved=statistics["reserved_bytes.all.current"],
        allocated=statistics["allocated_bytes.all.current"],
    )
