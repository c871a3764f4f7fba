"""Results that repeat to the bit, on devices whose fastest kernels add in an order of chance."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Use deterministic kernels inside, where there are any, if `wanted`; torch warns of each that has none.

    To be entered before the first matrix product on a CUDA device.
    """
    if not wanted:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """No gradients, and on CUDA the same numbers every time, at full float32 precision unless asked otherwise."""
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), flags:
        yield
