"""Where a network runs: device, precision, compilation, and one process or several under torchrun."""

import contextlib
import inspect
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.peers import GRACE_S, Peers, within
from pipeline.errors import ConfigError, TrainingError

_GRAPHS = 64
_LONGEST_S = 86_400
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The second name is that of torch before 2.13.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """Where and how precisely to compute.

    Attributes:
        device: "auto" takes a CUDA device where there is one.
        precision: of the matrix products; weights and their updates stay in float32.
        compile: whether `torch.compile` is applied, to the parts of the network that gain by it.
        strategy: of several processes. "ddp" keeps all weights, averages and moments in each of them; "fsdp" splits
            them, for less memory and more communication. Checkpoints do not depend on it.
        timeout_s: seconds that the processes wait for each other before they give up.
        deterministic: use kernels that repeat their results to the bit, where there are any; slower on CUDA.

    Raises:
        ValueError: naming the field and its value.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    strategy: Literal["ddp", "fsdp"] = "ddp"
    timeout_s: float = 600.0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {self.device!r} is not auto, cpu or cuda")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision {self.precision!r} is not fp32, bf16 or fp16")
        if self.strategy not in ("ddp", "fsdp"):
            raise ValueError(f"strategy {self.strategy!r} is not ddp or fsdp")
        if not 1 <= self.timeout_s <= _LONGEST_S:
            raise ValueError(f"timeout_s {self.timeout_s} is not in [1, {_LONGEST_S}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """This process's place among the others, and its device."""

    device: torch.device
    precision: str = "fp32"
    compile: bool = False
    rank: int = 0
    world: int = 1
    strategy: str = "ddp"

    @property
    def shards(self) -> bool:
        """Whether weights are split over the processes."""
        return self.strategy == "fsdp" and self.world > 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of forward passes."""
        dtype = _AUTOCAST.get(self.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """The gradient scaler, which does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def wrap(self, network: nn.Module) -> Callable[..., Tensor]:
        """`network` as it is called in training: compiled, and averaging gradients over the processes.

        Under "fsdp" it was sharded before, as the optimizer is made of the sharded parameters: see `model.sharding`.

        Parameters without `requires_grad` take no part, so wrap again when that changes.
        """
        if self.compile:
            import torch._dynamo.config as dynamo  # seconds, which only this needs

            # Stages share their code: the usual limit of 8 graphs for a function would leave some of them eager.
            dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
            network.compile(dynamic=False)
        if self.world == 1 or self.shards:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network,
            device_ids=ids,
            gradient_as_bucket_view=True,
            **{_SYNC_BUFFERS: False},  # they are constants, and too many to be sent around in every step
        )

    def eager(self) -> contextlib.AbstractContextManager[object]:
        """The context of forward passes that are not compiled: those outside of training, of many sizes."""
        return torch.compiler.set_stance("force_eager") if self.compile else contextlib.nullcontext()

    def accumulating(self, forward: Callable[..., Tensor]) -> contextlib.AbstractContextManager[object]:
        """The context of backward passes whose gradients are not yet averaged over the processes."""
        if self.shards:
            from model.sharding import unsynchronised  # seconds to import, which evaluation can do without

            return unsynchronised(forward)
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else contextlib.nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, element by element; every process must call it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """What each process has to say, by rank: plain values; every process must call it."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any of the processes; every process must call it."""
        if self.world == 1:
            return here
        return bool(self.sum(torch.full((1,), float(here), device=self.device)))

    def peak_memory_bytes(self) -> int:
        """The most memory in use so far: allocated on the CUDA device, or by this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def parallel(config: ParallelConfig) -> Iterator[Parallel]:
    """Join the other processes if torchrun started this one, and leave them at the end.

    Raises:
        ConfigError: CUDA is asked for and not there, or has fewer devices than processes.
        TrainingError: another process ended before this one, or did not answer in time.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(config.device)
    place = Parallel(
        device=device,
        precision=config.precision,
        compile=config.compile,
        rank=rank,
        world=world,
        strategy=config.strategy,
    )
    if world == 1:
        yield place
        return
    with _joined(place, timedelta(seconds=config.timeout_s)) as peers:
        try:
            yield place
        except RuntimeError as error:  # what operations of torch.distributed raise
            if not _is_about_others(error):
                raise
            raise _lost(peers, config.timeout_s, error) from error


@contextlib.contextmanager
def _joined(place: Parallel, timeout: timedelta) -> Iterator[Peers]:
    on_cuda = place.device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        rank=place.rank,
        world_size=place.world,
        timeout=timeout,
        **({"device_id": place.device} if on_cuda else {}),
    )
    peers = Peers()
    try:
        yield peers
        peers.part()
    except BaseException as error:
        # What waits on the device for the others may never end; they notice that this process leaves, and end too.
        with within(GRACE_S, f"{type(error).__name__}: {error}"):
            dist.destroy_process_group()
        peers.give_up()
        raise
    dist.destroy_process_group()


def _is_about_others(error: RuntimeError) -> bool:
    """Whether an operation of several processes failed; gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _lost(peers: Peers, timeout_s: float, error: RuntimeError) -> TrainingError:
    gone = sorted(peers.wait_for_loss(1.0))
    if gone:
        names = ", ".join(map(str, gone))
        problem = f"process{'es' * (len(gone) > 1)} {names} of the run ended before this one"
        return TrainingError(
            problem, "look for what they said themselves; then start all again with --resume"
        )
    return TrainingError(
        f"the processes of the run do not answer each other: {str(error).splitlines()[0]}",
        f"look for one that is stuck; parallel.timeout_s={timeout_s:g} is how long they wait for each other",
    )


def device_name(device: torch.device) -> str:
    """What a CUDA device calls itself; "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _device(wanted: str) -> torch.device:
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("parallel.device: no CUDA device is available", "use parallel.device=cpu, or auto")
    if wanted == "cpu" or not found:
        return torch.device("cpu")
    rank, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), rank + 1)
    if processes > devices:  # found by all processes of the machine alike
        raise ConfigError(
            f"process {processes - 1} of this machine has no CUDA device: there are {devices}",
            f"start it with torchrun --nproc-per-node={devices}",
        )
    torch.cuda.set_device(rank)
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", rank)
