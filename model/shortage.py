"""Whether a computation ended for want of memory, which its callers can answer with smaller pieces."""

import torch

_ALLOCATION_FAILED = ("can't allocate memory", "ALLOC_FAILED")
"""Of the allocator for the CPU and of CUDA's libraries, which raise a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a device or for the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_FAILED)
    )
