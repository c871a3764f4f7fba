"""Where a network runs: device, precision, compilation, and one process or several under torchrun."""

import contextlib
import inspect
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError

_GRAPHS = 64
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
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {self.device!r} is not auto, cpu or cuda")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision {self.precision!r} is not fp32, bf16 or fp16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """This process's place among the others, and its device."""

    device: torch.device
    precision: str = "fp32"
    compile: bool = False
    rank: int = 0
    world: int = 1

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

        Parameters without `requires_grad` take no part, so wrap again when that changes.
        """
        if self.compile:
            import torch._dynamo.config as dynamo  # seconds, which only this needs

            # Stages share their code: the usual limit of 8 graphs for a function would leave some of them eager.
            dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
            network.compile(dynamic=False)
        if self.world == 1:
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
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else contextlib.nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, element by element; every process must call it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, here: bool) -> bool:
        """Whether `here` is true in any of the processes; every process must call it."""
        if self.world == 1:
            return here
        return bool(self.sum(torch.full((1,), float(here), device=self.device)))

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum(torch.zeros(1, device=self.device))

    def peak_memory_bytes(self) -> int:
        """The most memory in use so far: allocated on the CUDA device, or by this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def parallel(config: ParallelConfig) -> Iterator[Parallel]:
    """Join the other processes if torchrun started this one, and leave them at the end.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
    place = Parallel(
        device=device, precision=config.precision, compile=config.compile, rank=rank, world=world
    )
    if world == 1:
        yield place
        return
    bound = {"device_id": device} if device.type == "cuda" else {}
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=world, **bound)
    try:
        yield place
    finally:
        dist.destroy_process_group()


def _device(wanted: str, local_rank: int) -> torch.device:
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("parallel.device: no CUDA device is available", "use parallel.device=cpu, or auto")
    if wanted == "cpu" or not found:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no CUDA device: there are {torch.cuda.device_count()}",
            f"start it with torchrun --nproc-per-node={torch.cuda.device_count()}",
        )
    torch.cuda.set_device(local_rank)
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", local_rank)
