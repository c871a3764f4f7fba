"""The network against the published algorithm (`benchmarks/plain_vrt.py`): time, peak memory, and that both agree.

python benchmarks/network.py [--device cuda] [--sizes 6x64x64 ...] [--depths mid|full] [--channels official|96]
                             [--checkpointing default|lists|all ...] [--spikes] [--compile] [--parts]

A step is forward, Charbonnier loss and backward, without the optimizer; batch 1, random weights and clips, the same in
every variant; `base` preset sizes, with `--depths mid` fewer blocks. CPU: float32. CUDA: the plain network in float32
and under bfloat16 autocast, ours under autocast. Times are medians of interleaved, shuffled rounds in one process. Peak
memory is what one step takes above weights and inputs: on a CPU the resident set of a fresh process for each variant,
on CUDA what the allocator handed out.

Checkpointing, of the published code and as the stages that ours recomputes: "default" is its switches off (it still
recomputes attention of the second groups) and ours recomputing nothing; "lists" its GoPro training and every stage of
ours in which that recomputes attention; "all" is everything. By part, each part runs forward and backward alone.

A full-depth plain step at 6x64x64 takes over 20 GB and a minute on a CPU.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import multiprocessing
import os
import random
import re
import statistics
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.plain_vrt import DEFORM_OPERATOR, KEPT_ATTENTION, PlainVRT, Recompute, compute_mask
from model.network import NetworkConfig, build_network

NUM_BINS = 32
MID_DEPTHS = (2,) * 7 + (1,) * 4
SIZES = {"cpu": ["6x64x64", "5x128x128"], "cuda": ["5x256x256", "5x128x128"]}
CHECKPOINTED = {
    "never": (),
    "default": (),
    "lists": tuple(sorted({min(i, 7) + 1 for i in range(11) if i not in KEPT_ATTENTION})),
    "all": tuple(range(1, 9)),
}
"""Stages that ours recomputes for each setting of the published code."""
LEAST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A clip: frames, height, width in pixels."""

    frames: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        frames, height, width = map(int, text.split("x"))
        return cls(frames=frames, height=height, width=width)

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of the tables."""

    network: Literal["plain", "ours", "ours with spikes"]
    precision: Literal["fp32", "bf16"]
    checkpointing: Recompute
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.network} {self.precision}{' compiled' if self.compiled else ''}"


class Job:
    """A variant's network on a device, with its clip."""

    def __init__(self, variant: Variant, config: NetworkConfig, size: Size, device: str) -> None:
        self.device, self.precision = device, variant.precision
        self.network = _network(variant, config).to(device)
        self.parameters = list(self.network.parameters())
        noise = torch.Generator().manual_seed(0)
        blurry, sharp = torch.rand(2, 1, size.frames, 3, size.height, size.width, generator=noise)
        voxels = torch.randn(1, size.frames, NUM_BINS, size.height // 2, size.width // 2, generator=noise)
        inputs = (blurry, voxels) if variant.network == "ours with spikes" else (blurry,)
        self.inputs = [x.to(device) for x in inputs]
        self.sharp = sharp.to(device)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self) -> Tensor:
        """Restore without gradients."""
        with torch.no_grad(), self.autocast():
            return self.network(*self.inputs)

    def step(self) -> Tensor:
        """Forward, loss, backward; the gradients stay until the next call. Returns the output."""
        self.clear()
        with self.autocast():
            out = self.network(*self.inputs)
        (out.float() - self.sharp).square().add(1e-6).sqrt().mean().backward()
        return out.detach()

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class Result(NamedTuple):
    """Output of a step, and the gradients by name; float32 on the CPU."""

    output: Tensor
    grads: dict[str, Tensor]


class Clocks(NamedTuple):
    """Seconds that something took: by the device's clock, and of this process on the CPU."""

    device: float
    cpu: float


class Cost(NamedTuple):
    """What one variant takes."""

    forward: Clocks
    step: Clocks
    peak_bytes: int


def measure(
    variants: Sequence[Variant], config: NetworkConfig, size: Size, options: argparse.Namespace
) -> dict[Variant, Cost | None]:
    """Costs of every variant, None of what does not fit; tells on standard output how far the variants agree."""
    jobs = {variant: Job(variant, config, size, options.device) for variant in variants}
    peaks: dict[Variant, int] = {}
    results: dict[Variant, Result] = {}
    for variant, job in list(jobs.items()):
        progress(f"{size} {variant.checkpointing}: {variant}")
        try:
            results[variant] = _result(job)
            peaks[variant] = _peak(variant, job, config, size)
        except torch.OutOfMemoryError:
            del jobs[variant]
        job.clear()
        tidy(options.device)
    say(agreement(results))
    results.clear()
    forwards = timed({variant: job.forward for variant, job in jobs.items()}, options)
    steps = timed({variant: job.step for variant, job in jobs.items()}, options, tidy=_clear_all(jobs))
    return {v: Cost(forwards[v], steps[v], peaks[v]) if v in jobs else None for v in variants}


def timed(
    turns: Mapping[Any, Callable[[], object]],
    options: argparse.Namespace,
    tidy: Callable[[], object] = lambda: None,
) -> dict[Any, Clocks]:
    """Medians of interleaved, shuffled rounds after one that does not count, until rounds or time are used up."""
    taken: dict[Any, list[Clocks]] = {name: [] for name in turns}
    order = list(turns)
    started = time.perf_counter()
    for number in range(options.rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            clocks = _clocked(turns[name], options.device)
            if number:
                taken[name].append(clocks)
            tidy()
        if number >= LEAST_ROUNDS and time.perf_counter() - started > options.seconds:
            break
    progress(f"  {number} rounds in {time.perf_counter() - started:.0f} s")
    return {name: Clocks(*map(statistics.median, zip(*each, strict=True))) for name, each in taken.items()}


def agreement(results: Mapping[Variant, Result]) -> str:
    """How far outputs and gradients are from those of the first variant; spikes are another function and left out."""
    alike = {v: result for v, result in results.items() if v.network != "ours with spikes"}
    if len(alike) < 2:
        return ""
    (first, wanted), *others = alike.items()
    norm = sum(x.double().square().sum().item() for x in wanted.grads.values()) ** 0.5
    lines = []
    for variant, got in others:
        apart = {name: got.grads[name] - x for name, x in wanted.grads.items()}
        shares = [
            (apart[name].abs().max() / x.abs().max().clamp_min(1e-30)).item()
            for name, x in wanted.grads.items()
        ]
        error = sum(x.double().square().sum().item() for x in apart.values()) ** 0.5
        lines.append(
            f"{variant} from {first}: output {(got.output - wanted.output).abs().max():.1e} at most; gradient "
            f"{error / norm:.1e} of its norm, {statistics.median(shares):.1e} of a tensor's largest entry in the "
            f"median, {max(shares):.1e} at worst\n"
        )
    return "\n".join(lines)


def cost_table(title: str, costs: Mapping[Variant, Cost | None], device: str) -> str:
    """What every variant takes, and in relation to ours."""
    ratios: dict[str, Callable[[Cost, Cost], float]] = {
        "forward over ours": lambda cost, ours: cost.forward.device / ours.forward.device,
        "step over ours": lambda cost, ours: cost.step.device / ours.step.device,
    }
    if device == "cpu":
        ratios["forward, CPU time"] = lambda cost, ours: cost.forward.cpu / ours.forward.cpu
        ratios["step, CPU time"] = lambda cost, ours: cost.step.cpu / ours.step.cpu
    ratios["ours' peak over it"] = lambda cost, ours: ours.peak_bytes / cost.peak_bytes
    columns = (*ratios, "forward s", "step s", "peak GB")
    lines = [f"### {title}", "", f"| network | {' | '.join(columns)} |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    ours = next(cost for variant, cost in costs.items() if variant.network == "ours")
    for variant, cost in costs.items():
        figures = ["does not fit"]
        if cost is not None:
            figures = [f"{ratio(cost, ours):.2f}" if ours else "" for ratio in ratios.values()]
            figures += [
                f"{cost.forward.device:.3f}",
                f"{cost.step.device:.3f}",
                f"{cost.peak_bytes / 1e9:.2f}",
            ]
        figures += [""] * (len(columns) - len(figures))
        lines.append(f"| {variant} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def parts_table(
    variants: Sequence[Variant], config: NetworkConfig, size: Size, options: argparse.Namespace
) -> str:
    """Forward and backward of every part of the plain network and of ours, each part alone."""
    seconds: dict[Variant, dict[str, float]] = {}
    for variant in variants:
        progress(f"{size}: parts of {variant}")
        job = Job(variant, config, size, options.device)
        turns = _part_turns(job)
        seconds[variant] = {part: clocks.device for part, clocks in timed(turns, options, job.clear).items()}
        del job, turns
        tidy(options.device)
    plain, ours = (seconds[variant] for variant in variants)
    total = sum(ours.values())
    lines = [
        f"### By part, {size}, {variants[0]} over {variants[1]}, {variants[0].checkpointing}",
        "",
        "| part | plain over ours | share of ours | plain s | ours s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part, taken in ours.items():
        before = (f"{plain[part] / taken:.2f}", f"{plain[part]:.4f}") if part in plain else ("", "")
        lines.append(f"| {part} | {before[0]} | {taken / total:.1%} | {before[1]} | {taken:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = _options()
    config = NetworkConfig(drop_path_rate=0.0)
    if options.depths == "mid":
        config = dataclasses.replace(config, depths=MID_DEPTHS)
    if options.channels == "96":
        config = dataclasses.replace(config, embed_dims=(96,) * 11)
    torch.backends.cudnn.benchmark = True  # as in training
    where = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    malloc = "tuned" if os.environ.get("MALLOC_MMAP_MAX_") else "default"
    say(
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, malloc {malloc}; the plain network's "
        f"deformable convolution: {DEFORM_OPERATOR}; {options.depths} depths, channels {options.channels}\n"
    )
    for text in options.sizes:
        size = Size.parse(text)
        for checkpointing in options.checkpointing:
            costs = measure(_variants(checkpointing, options), config, size, options)
            title = f"{size}, {options.depths} depths, checkpointing {checkpointing}"
            say(cost_table(title, costs, options.device))
    if options.parts:
        precision = "fp32" if options.device == "cpu" else "bf16"
        network = "ours with spikes" if options.spikes else "ours"
        variants = [
            Variant(network=name, precision=precision, checkpointing=options.checkpointing[0])
            for name in ("plain", network)
        ]
        say(parts_table(variants, config, Size.parse(options.sizes[0]), options))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def tidy(device: str) -> None:
    """Give freed memory back."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        return
    with contextlib.suppress(OSError, AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", help="frames x height x width of the clips")
    parser.add_argument("--depths", choices=("mid", "full"), help="full is the default on CUDA")
    parser.add_argument("--channels", choices=("official", "96"), default="official")
    parser.add_argument("--checkpointing", nargs="+", choices=tuple(CHECKPOINTED))
    parser.add_argument("--ours-only", action="store_true", help="without the plain network")
    parser.add_argument("--spikes", action="store_true", help="also ours with the spike branch")
    parser.add_argument("--compile", action="store_true", help="also ours, compiled as in training")
    parser.add_argument("--parts", action="store_true", help="also a table by part, of the first size")
    parser.add_argument("--rounds", type=int, help="5, on CUDA 10")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        help="of each timing; after them no further round starts",
    )
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.sizes = options.sizes or SIZES[options.device]
    options.depths = options.depths or ("full" if on_gpu else "mid")
    options.checkpointing = options.checkpointing or ["default", "lists"]
    options.rounds = options.rounds or (10 if on_gpu else 5)
    return options


def _variants(checkpointing: Recompute, options: argparse.Namespace) -> list[Variant]:
    fast = "bf16" if options.device == "cuda" else "fp32"
    variants = [
        Variant(network="plain", precision=precision, checkpointing=checkpointing)
        for precision in dict.fromkeys(("fp32", fast))
        if not options.ours_only
    ]
    for network in ("ours", "ours with spikes") if options.spikes else ("ours",):
        for compiled in (False, True) if options.compile else (False,):
            variants.append(
                Variant(network=network, precision=fast, checkpointing=checkpointing, compiled=compiled)
            )
    return variants


def _network(variant: Variant, config: NetworkConfig) -> nn.Module:
    """A network whose weights depend on their names alone, so that every variant has the same; none of them zero."""
    if variant.network == "plain":
        network: nn.Module = PlainVRT(config, variant.checkpointing)
    else:
        fusion = "none" if variant.network == "ours" else config.fusion
        stages = CHECKPOINTED[variant.checkpointing]
        network = build_network(
            dataclasses.replace(config, fusion=fusion, checkpoint_stages=stages), NUM_BINS
        )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            scale = 0.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            centre = (
                1.0 if re.search(r"norm\w*\.weight|reshape\.1\.weight|stage8\.0\.1\.weight", name) else 0.0
            )
            parameter.normal_(centre, scale, generator=noise)
    if variant.compiled:
        torch._dynamo.config.recompile_limit = 64
        network.compile(dynamic=False)
    return network


def _result(job: Job) -> Result:
    """One step, which also warms up."""
    output = job.step().float().cpu()
    return Result(output, {name: x.grad.float().cpu() for name, x in job.network.named_parameters()})


def _peak(variant: Variant, job: Job, config: NetworkConfig, size: Size) -> int:
    """Bytes that one step takes at most above weights and inputs, masks that are kept included."""
    if job.device == "cpu":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            return fresh.submit(_resident_peak, variant, config, size, torch.get_num_threads()).result()
    job.clear()
    compute_mask.cache_clear()
    tidy(job.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    job.step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _resident_peak(variant: Variant, config: NetworkConfig, size: Size, threads: int) -> int:
    """The same by the resident set of this process, which has done nothing else."""
    torch.set_num_threads(threads)
    job = Job(variant, config, size, "cpu")
    tidy("cpu")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = _resident("VmRSS")
    job.step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    line = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(line[1]) * 1024


def _clocked(turn: Callable[[], object], device: str) -> Clocks:
    cpu = time.process_time()
    if device == "cpu":
        started = time.perf_counter()
        turn()
        return Clocks(time.perf_counter() - started, time.process_time() - cpu)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    turn()
    end.record()
    end.synchronize()
    return Clocks(start.elapsed_time(end) / 1e3, time.process_time() - cpu)


def _clear_all(jobs: Mapping[Variant, Job]) -> Callable[[], None]:
    def clear() -> None:
        for job in jobs.values():
            job.clear()

    return clear


def _part_turns(job: Job) -> dict[str, Callable[[], None]]:
    """For each part of the network, its forward and backward with what it is given in the whole network."""
    calls: dict[str, list[tuple[nn.Module, tuple[Any, ...]]]] = defaultdict(list)
    handles = []
    for name, module in _parts(job.network):

        def keep(module: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            calls[name].append((module, args))

        handles.append(module.register_forward_pre_hook(keep))
    job.forward()
    for handle in handles:
        handle.remove()

    def turn(part: str) -> Callable[[], None]:
        def run() -> None:
            for module, args in calls[part]:
                with job.autocast():
                    outputs = list(_tensors(module(*_leaves(args))))
                outputs = [x for x in outputs if x.requires_grad]
                torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])

        return run

    return {part: turn(part) for part in calls}


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts and what the table calls them."""
    for name, module in network.named_children():
        if not any(True for _ in module.parameters()):
            continue
        if name in ("stage8", "fusions"):
            yield from ((name, part) for part in module)
        elif name in ("spynet", "spike_encoder") or name.startswith("stage"):
            yield name, module


def _leaves(value: Any) -> Any:
    """The same with every tensor detached, and such that those of a gradient's kind get one."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.is_floating_point())
    if isinstance(value, tuple | list):
        items = [_leaves(x) for x in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for x in value:
            yield from _tensors(x)


if __name__ == "__main__":
    main()
