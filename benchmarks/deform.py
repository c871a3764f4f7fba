"""The flow-guided deformable convolution: ours against plain PyTorch and torchvision's operator.

python benchmarks/deform.py [--tune]

On CUDA ours are the Triton kernels, on a CPU the plain version in pieces that fit the cache. The plain variant on CUDA
is that one too, recomputed in backward. torchvision takes part where it can be imported; offsets and masks are then
made by PyTorch, and always in float32, as it has no other sampling under autocast.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import model.deform
from benchmarks.rounds import medians
from model.vrt import FlowGuidedDeformConv

try:
    from torchvision.ops import deform_conv2d as operator
except ImportError:
    operator = None

CHANNELS = 96
GROUPS = 16
LIMIT = 10.0
JITTER = 0.1
"""Spread of the residual before tanh: about a pixel around the flow."""
CUDA_SHAPE = (8, CHANNELS, 256, 256)
CPU_SHAPE = (2, CHANNELS, 64, 64)
LAUNCHES = tuple((block, warps) for block in (128, 256) for warps in (4, 8))
COLUMNS = (2**24, 2**26, 2**28)


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """A region in which CUDA takes the plain version."""
    before = model.deform._HAS_TRITON
    model.deform._HAS_TRITON = False
    try:
        yield
    finally:
        model.deform._HAS_TRITON = before


class Case:
    """One convolution and its arguments, called in several ways."""

    def __init__(self, shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        batch, _, *size = shape
        self.device, self.dtype = device, dtype
        self.align = FlowGuidedDeformConv(CHANNELS, 1, GROUPS, LIMIT).to(device)
        self.x = torch.randn(shape, device=device).to(dtype).requires_grad_()
        residual = JITTER * torch.randn(batch, 27 * GROUPS, *size, device=device)
        self.residual = residual.to(dtype).requires_grad_()
        coarse = 5 * torch.randn(batch, 2, 8, 8, device=device)
        self.motion = F.interpolate(coarse, size, mode="bicubic").unsqueeze(1).requires_grad_()
        self.leaves = [self.x, self.residual, self.motion, self.align.weight, self.align.bias]

    def ours(self) -> Tensor:
        if self.device == "cuda":
            return self.align._sample(self.x, self.residual, self.motion)
        return self.align._sample_in_chunks(self.x, self.residual, self.motion)

    def plain(self) -> Tensor:
        with without_kernels():
            return self.align._sample_in_chunks(self.x, self.residual, self.motion)

    def torchvision(self) -> Tensor:
        moves, mask = self.residual.float().split((18 * GROUPS, 9 * GROUPS), dim=1)
        offset = model.deform._add_motion(LIMIT * torch.tanh(moves), self.motion)
        return operator(
            self.x.float(), offset, self.align.weight, self.align.bias, padding=1, mask=torch.sigmoid(mask)
        )

    def variants(self) -> dict[str, Callable[[], Tensor]]:
        return (
            {"ours": self.ours}
            | ({"plain PyTorch": self.plain} if self.device == "cuda" else {})
            | ({"torchvision": self.torchvision} if operator is not None else {})
        )

    def forward(self, variant: Callable[[], Tensor]) -> None:
        with torch.no_grad(), self._autocast():
            variant()
        self._wait()

    def step(self, variant: Callable[[], Tensor]) -> None:
        with self._autocast():
            out = variant()
        # The plain version chooses again what to recompute with.
        with without_kernels() if variant == self.plain else contextlib.nullcontext():
            torch.autograd.grad(out, self.leaves, torch.ones_like(out))
        self._wait()

    def peak_mb(self, variant: Callable[[], Tensor]) -> float:
        """Most memory beyond the arguments, on CUDA."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step(variant)
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def compare(case: Case, rounds: int) -> None:
    """Print milliseconds and ratios of all variants."""
    variants = case.variants()
    for name, variant in variants.items():
        with torch.no_grad(), case._autocast():
            reference = case.ours().float()
            error = (variant().float() - reference).abs().max() / reference.abs().max()
        assert error < (1e-4 if case.dtype == torch.float32 else 3e-2), f"{name}: {error}"
    forward = seconds({name: lambda v=variant: case.forward(v) for name, variant in variants.items()}, rounds)
    step = seconds({name: lambda v=variant: case.step(v) for name, variant in variants.items()}, rounds)
    title = f"### {tuple(case.x.shape)}, {str(case.dtype).removeprefix('torch.')}, {case.device}"
    lines = [title, "", "| variant | forward, ms | over ours | with backward, ms | over ours | peak MB |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, variant in variants.items():
        times = [
            part for t in (forward, step) for part in (f"{1e3 * t[name]:.2f}", f"{t[name] / t['ours']:.2f}")
        ]
        peak = f"{case.peak_mb(variant):.0f}" if case.device == "cuda" else "-"
        lines.append(f"| {' | '.join([name, *times, peak])} |")
    sys.stdout.write("\n".join(lines) + "\n\n")


def seconds(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    return medians(variants, rounds, clock=time.perf_counter)


def tune(case: Case) -> None:
    """Print what the sizes of blocks and of pieces cost."""
    from model import deform_triton

    for columns in COLUMNS:
        for block, warps in LAUNCHES:
            deform_triton._COLUMNS, deform_triton._BLOCK, deform_triton._WARPS = columns, block, warps
            turns = {"forward": lambda: case.forward(case.ours), "step": lambda: case.step(case.ours)}
            took = {name: f"{1e3 * value:.2f} ms" for name, value in seconds(turns, 5).items()}
            sys.stdout.write(f"columns 2**{columns.bit_length() - 1}, block {block}, warps {warps}: {took}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="on CUDA, vary the sizes of the launches instead")
    tuning = parser.parse_args().tune
    if not torch.cuda.is_available():
        compare(Case(CPU_SHAPE, "cpu", torch.float32), rounds=3)
    elif tuning:
        tune(Case(CUDA_SHAPE, "cuda", torch.bfloat16))
    else:
        for dtype in (torch.bfloat16, torch.float32):
            compare(Case(CUDA_SHAPE, "cuda", dtype), rounds=5)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
