"""What the spike branch (encoder and fusions) costs of a training step: in FLOPs, in time, and part by part.

python benchmarks/spike_branch.py [--device cuda] [--depths NAME] [--size T H W] [--rounds N] [--compile]

Without arguments: on a CPU, float32, the reference depths at 5x64x64 and a quarter of them at 5x64x64 and 5x128x128.
With `--device cuda`: the reference model at 5x256x256, bf16. FLOPs are those of matrix products and convolutions, a
step being a forward and a backward. Times on a CPU are process CPU time, on CUDA wall time around synchronisations;
variants are interleaved.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rounds import medians
from model.network import NetworkConfig, build_network
from model.temporal_attention import attend_by_kernel, attend_by_products

NUM_BINS = 32
DEPTHS = {"base": (8,) * 7 + (4,) * 4, "quarter": (2,) * 7 + (1,) * 4}
CPU_CASES = (("quarter", (5, 64, 64)), ("quarter", (5, 128, 128)), ("base", (5, 64, 64)))
CUDA_CASES = (("base", (5, 256, 256)),)
Size = tuple[int, int, int]
Step = Callable[[], None]


def config_of(depths: str, fusion: str) -> NetworkConfig:
    return NetworkConfig(depths=DEPTHS[depths], fusion=fusion)


def inputs(size: Size, scale: int, device: str) -> tuple[Tensor, Tensor]:
    """Blurry frames and voxels at 1 / scale of their resolution."""
    frames, height, width = size
    return (
        torch.rand(1, frames, 3, height, width, device=device),
        torch.randn(1, frames, NUM_BINS, height // scale, width // scale, device=device),
    )


def step_of(network: nn.Module, arguments: Iterable[Tensor], autocast: bool) -> Step:
    """Forward and backward, gradients of the parameters and of all inputs that ask for one."""
    arguments = tuple(arguments)
    device = arguments[0].device.type

    def step() -> None:
        precision = torch.autocast(device, dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
        with precision:
            outs = network(*arguments)
        outs = list(outs) if isinstance(outs, list) else [outs]
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
        network.zero_grad(set_to_none=True)
        for argument in arguments:
            argument.grad = None

    return step


def flops(depths: str, fusion: str, size: Size, scale: int = 1) -> int:
    """Of a step, counted without computing anything."""
    with torch.device("meta"):
        network = build_network(config_of(depths, fusion), NUM_BINS)
    with FlopCounterMode(display=False) as counter:
        step_of(network, inputs(size, scale, "meta"), autocast=False)()
    return counter.get_total_flops()


def seconds(variants: Mapping[str, Step], device: str, rounds: int) -> dict[str, float]:
    if device == "cpu":
        return medians(variants, rounds)

    def finished(variant: Step) -> Step:
        def run() -> None:
            variant()
            torch.cuda.synchronize()

        return run

    variants = {name: finished(variant) for name, variant in variants.items()}
    return medians(variants, rounds, clock=time.perf_counter)


def whole_steps(depths: str, size: Size, device: str, rounds: int) -> None:
    autocast = device == "cuda"
    networks = {
        fusion: build_network(config_of(depths, fusion), NUM_BINS).to(device)
        for fusion in ("none", "cross_attention")
    }
    variants = {"none": step_of(networks["none"], inputs(size, 1, device), autocast)}
    names = {}
    for scale in (1, 2):
        names[scale] = (
            f"voxels at 1/{scale} of the RGB resolution" if scale > 1 else "voxels at the RGB resolution"
        )
        variants[names[scale]] = step_of(networks["cross_attention"], inputs(size, scale, device), autocast)
    found = seconds(variants, device, rounds)
    plain = flops(depths, "none", size)
    say(f"### {depths} depths, {'x'.join(map(str, size))}\n")
    say("| step | TFLOP | branch, % of the step | seconds | branch, % of the step |")
    say("| --- | ---: | ---: | ---: | ---: |")
    say(f"| RGB alone | {plain / 1e12:.3f} | | {found['none']:.3f} | |")
    for scale, name in names.items():
        count = flops(depths, "cross_attention", size, scale)
        share, counted = 1 - found["none"] / found[name], 1 - plain / count
        say(f"| {name} | {count / 1e12:.3f} | {100 * counted:.1f} | {found[name]:.3f} | {100 * share:.1f} |")
    say("")


def parts(size: Size, device: str, rounds: int, compiled: bool) -> None:
    """The parts of the branch on their own, and other ways to compute them."""
    autocast = device == "cuda"
    dtype = torch.bfloat16 if autocast else torch.float32
    network = build_network(NetworkConfig(), NUM_BINS).to(device)
    frames, height, width = size
    voxels = inputs(size, 1, device)[1].transpose(1, 2).to(dtype)
    lasting = voxels.contiguous(memory_format=torch.channels_last_3d)
    variants = {
        "pyramid, voxels channels-last (ours)": step_of(network.spike_encoder.pyramid, [lasting], autocast),
        "pyramid, voxels contiguous": step_of(network.spike_encoder.pyramid, [voxels.contiguous()], autocast),
    }
    for i, (attend, fuse) in enumerate(zip(network.spike_encoder.attention, network.fusions, strict=True)):
        shape = (1, frames, height >> i, width >> i, 96)
        rgb, spikes = (
            torch.randn(shape, device=device, dtype=dtype).permute(0, 4, 1, 2, 3).requires_grad_()
            for _ in range(2)
        )
        variants[f"spike attention at scale {i}"] = step_of(attend, [spikes], autocast)
        variants[f"fusion at scale {i}"] = step_of(fuse, [rgb, spikes], autocast)
    heads = (1, frames, height, width, 4, 24)
    q, k, v = (torch.randn(heads, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    q, k, v = (x[:, :, : min(height, 192), : min(width, 192)].detach().requires_grad_() for x in (q, k, v))
    bias = torch.randn(1, 4, frames, frames, device=device, requires_grad=True)
    ways = {"kernel": attend_by_kernel, "products": attend_by_products}
    if compiled:
        ways["products, compiled"] = torch.compile(attend_by_products)
    for name, way in ways.items():
        variants[f"attention alone, a chunk of scale 0: {name}"] = step_of(
            Function(way), [q, k, v, bias], False
        )
    say("| part, forward and backward | seconds |\n| --- | ---: |")
    for name, value in seconds(variants, device, rounds).items():
        say(f"| {name} | {value:.4f} |")
    say("")


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--depths", choices=tuple(DEPTHS))
    parser.add_argument("--size", type=int, nargs=3, metavar=("T", "H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="the attention alone, compiled, too")
    arguments = parser.parse_args()
    cases = CUDA_CASES if arguments.device == "cuda" else CPU_CASES
    if arguments.size:
        cases = ((arguments.depths or "base", tuple(arguments.size)),)
    for depths, size in cases:
        whole_steps(depths, size, arguments.device, arguments.rounds)
    for size in dict.fromkeys(size for _, size in cases):
        say(f"### parts, {'x'.join(map(str, size))}\n")
        parts(size, arguments.device, arguments.rounds, arguments.compile)


if __name__ == "__main__":
    main()
