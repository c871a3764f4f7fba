"""The smallest Triton kernel: does the compiler work here, and its driver?"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def doubled(values: Tensor) -> Tensor:
    """Twice the values of a float32 vector on a CUDA device, by a kernel that is compiled for it."""
    out = torch.empty_like(values)
    block = triton.next_power_of_2(values.numel())
    _double[(1,)](values, out, values.numel(), block=block)
    return out


@triton.jit
def _double(values, out, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, block)
    inside = place < count
    tl.store(out + place, 2 * tl.load(values + place, mask=inside), mask=inside)
