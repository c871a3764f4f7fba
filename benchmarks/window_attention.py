"""Window attention on CUDA: the Triton kernels against explicit softmax and PyTorch's fused attention.

python benchmarks/window_attention.py [--seconds 20] [--kernels] [--sweep]

Shapes are those of the network on clips of 6x192x192 and 5x256x256, in bfloat16. Forward alone, and forward with
backward, gradient of the bias included. Times are medians by CUDA events, compilation apart; memory is the peak over
the inputs. After --seconds no other case is begun; most of the time is compiling, whose results a second run finds.

- *explicit*: q k^T, scaled, plus bias, plus a mask for every window; softmax; times v.
- *fused by PyTorch*: scaled_dot_product_attention, with the sum of bias and masks for every window as its mask.

--kernels tells the time of each of our kernels; --sweep then tries other tiles for the first case.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model import attention_triton
from model.attention_triton import window_attention

ROUNDS = 10
OURS, EXPLICIT, FUSED = "ours", "explicit", "fused by PyTorch"


class Case(NamedTuple):
    """Windows of one layer; it is shifted if `regions` are wanted."""

    windows: tuple[int, int, int]
    tokens: int
    channels: int
    regions: bool
    mutual: bool = False
    heads: int = 6


CASES = {
    "self 6x8x8, 96 channels, shifted": Case((1, 24, 24), 384, 96, True),
    "mutual 2x8x8, 96 channels, shifted": Case((3, 24, 24), 128, 96, True, mutual=True),
    "self 5x8x8 of 256x256, 96 channels": Case((1, 32, 32), 320, 96, False),
    "self 6x8x8, 120 channels": Case((1, 24, 24), 384, 120, False),
    "self 2x8x8, 96 channels, shifted": Case((3, 24, 24), 128, 96, True),
    "indep 1x8x8, 120 channels, shifted": Case((6, 24, 24), 64, 120, True),
    "self 6x8x8, 96 channels": Case((1, 24, 24), 384, 96, False),
}
"""The most important first."""


def regions_of(tokens: int) -> Tensor:
    """Of 8x8 windows shifted by half in height and width."""
    token = torch.arange(tokens)
    down, across = token // 8 % 8 >= 4, token % 8 >= 4
    last = torch.arange(2)
    return (last[:, None, None] * 2 * down + last[None, :, None] * across).int().expand(2, 2, 2, tokens)


def masks_of(case: Case, regions: Tensor, dtype: torch.dtype) -> Tensor:
    """One mask per window, (windows, 1, N, N), or of half the tokens."""
    regions = regions[..., : case.tokens // 2] if case.mutual else regions
    masks = (regions[..., :, None] != regions[..., None, :]).to(dtype) * -100.0
    last = [(torch.arange(n) == n - 1).long() for n in case.windows]
    return masks[last[0][:, None, None], last[1][:, None], last[2]].flatten(0, 2).unsqueeze(1)


def heads_first(qkv: Tensor, case: Case) -> list[Tensor]:
    """q, k and v as (windows or frames, heads, N, d); frames of a window follow each other."""
    parts = 2 if case.mutual else 1
    qkv = qkv.reshape(-1, parts, case.tokens // parts, 3, case.heads, case.channels // case.heads)
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
    return [x.flatten(0, 1) for x in (q.flip(1), k, v)]


def result(out: Tensor, case: Case) -> Tensor:
    return out.transpose(1, 2).reshape(1, *case.windows, case.tokens, case.channels)


def explicit(qkv: Tensor, bias: Tensor | None, masks: Tensor | None, case: Case) -> Tensor:
    q, k, v = heads_first(qkv, case)
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    logits = logits if bias is None else logits + bias.to(q.dtype)
    if masks is not None:
        logits = logits + (masks.repeat_interleave(2, 0) if case.mutual else masks)
    return result(logits.softmax(-1) @ v, case)


def fused(qkv: Tensor, bias: Tensor | None, masks: Tensor | None, case: Case) -> Tensor:
    q, k, v = heads_first(qkv, case)
    mask = None if bias is None else bias.to(q.dtype).unsqueeze(0)
    if masks is not None:
        masks = masks.repeat_interleave(2, 0) if case.mutual else masks
        mask = masks if mask is None else mask + masks
    mask = None if mask is None else mask.expand(len(q), case.heads, -1, -1)
    return result(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), case)


def timed(job: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median milliseconds, and peak megabytes over what was there before; after two calls that do not count."""
    job(), job()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for start, end in events:
        start.record()
        job()
        end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return statistics.median(start.elapsed_time(end) for start, end in events), peak / 1e6


def jobs(case: Case) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By variant: forward, and forward with backward."""
    torch.manual_seed(0)
    qkv = (
        torch.randn(1, *case.windows, case.tokens, 3 * case.channels, device="cuda")
        .bfloat16()
        .requires_grad_()
    )
    bias = regions = masks = None
    if not case.mutual:
        bias = torch.randn(case.heads, case.tokens, case.tokens, device="cuda").requires_grad_()
    if case.regions:
        regions = regions_of(case.tokens).contiguous()
        masks = masks_of(case, regions, qkv.dtype).cuda()
        regions = regions.cuda()
    leaves = [x for x in (qkv, bias) if x is not None]
    variants = {
        OURS: lambda: window_attention(qkv, bias, regions, case.heads, mutual=case.mutual),
        EXPLICIT: lambda: explicit(qkv, bias, masks, case),
        FUSED: lambda: fused(qkv, bias, masks, case),
    }
    grad = torch.randn(1, *case.windows, case.tokens, case.channels, device="cuda").bfloat16()

    def both(attend: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(attend(), leaves, grad)

    def alone(attend: Callable[[], Tensor]) -> Callable[[], object]:
        return torch.no_grad()(attend)

    return {name: (alone(attend), both(attend)) for name, attend in variants.items()}


def compare(name: str, case: Case, *, kernels: bool) -> None:
    variants = jobs(case)
    started = time.perf_counter()
    for job in variants[OURS]:
        job()
    torch.cuda.synchronize()
    compiled = time.perf_counter() - started
    found = {}
    for variant, (forward, both) in variants.items():
        try:
            found[variant] = (*timed(forward), *timed(both))
        except torch.cuda.OutOfMemoryError:
            sys.stdout.write(f"{variant}: out of memory\n")
        torch.cuda.empty_cache()
    sys.stdout.write(
        f"### {name}\n\nFirst calls: {compiled:.1f} s.\n\n"
        "| variant | forward, ms | over ours | MB | with backward, ms | over ours | MB |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    ours = found[OURS]
    for variant, (forward, size, both, size_both) in found.items():
        sys.stdout.write(
            f"| {variant} | {forward:.3f} | {forward / ours[0]:.1f} | {size:.0f} |"
            f" {both:.3f} | {both / ours[2]:.1f} | {size_both:.0f} |\n"
        )
    sys.stdout.write("\n")
    if kernels:
        tell_kernels(variants[OURS][1])
    sys.stdout.flush()


def tell_kernels(job: Callable[[], object]) -> None:
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            job()
        torch.cuda.synchronize()
    for event in sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total):
        if event.self_device_time_total:
            sys.stdout.write(f"    {event.self_device_time_total / 3e3:8.3f} ms  {event.key[:60]}\n")
    sys.stdout.write("\n")


def sweep(case: Case) -> None:
    """Our times for other tiles, forward and with backward; constants that a half does not use are left alone."""

    def attempt(half: int, values: dict[str, int]) -> None:
        before = {name: getattr(attention_triton, name) for name in values}
        for name, value in values.items():
            setattr(attention_triton, name, value)
        try:
            milliseconds = timed(jobs(case)[OURS][half], 5)[0]
            sys.stdout.write(f"{('forward', 'with backward')[half]} {milliseconds:.3f} ms {values}\n")
        except Exception as error:
            sys.stdout.write(f"{values}: {type(error).__name__} {str(error)[:80]}\n")
        for name, value in before.items():
            setattr(attention_triton, name, value)
        sys.stdout.flush()

    for queries, keys in itertools.product((64, 128), (64, 128)):
        attempt(0, {"FORWARD_QUERIES": queries, "FORWARD_KEYS": keys})
    for channels, registers in itertools.product((0, 32), (128, 168, 255)):
        attempt(1, {"FUSED_CHANNELS": channels, "REGISTERS": registers})
    for programs in (528, 2112):
        attempt(1, {"BIAS_PROGRAMS": programs})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    options = parser.parse_args()
    sys.stdout.write(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n\n")
    started = time.perf_counter()
    for name, case in CASES.items():
        if time.perf_counter() - started < options.seconds:
            compare(name, case, kernels=options.kernels)
        else:
            sys.stdout.write(f"{name}: left out, --seconds is over\n")
    if options.sweep:
        sweep(next(iter(CASES.values())))


if __name__ == "__main__":
    main()
