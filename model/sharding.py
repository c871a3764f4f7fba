"""Weights, gradients and moments split over the processes: `parallel.strategy=fsdp`.

Zhao et al., "PyTorch FSDP" (2023), in the form of `torch.distributed.fsdp.fully_shard`: every parameter is a DTensor
of which a process holds some rows. The weights of a part of the network are gathered before it runs, and let go of
afterwards. They are gathered in float32 and it is autocast that narrows them, as without sharding: the parts that
compute in full precision keep doing so.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(network: nn.Module, device: torch.device) -> None:
    """Keep of every parameter only the rows of this process, in place; nothing is communicated.

    Args:
        network: with the same weights in every process; the weights of each of its `parts()`, where it has them, are
            gathered together, and all others before the first.
        device: that the network is on.
    """
    # No part of a network may change what another one returned in place; a test compares the gradients of ours.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)
    parts = network.parts() if hasattr(network, "parts") else {}
    for part in parts.values():
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)


def skeleton(network: nn.Module) -> nn.Module:
    """A copy of a network that is not sharded yet, without its values; see `whole_network`."""
    return copy.deepcopy(network).to("meta")


def whole_network(bones: nn.Module, network: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a sharded network that runs without the other processes; every process must call this.

    Args:
        bones: the `skeleton` of the network.
        network: sharded.
        device: of the copy.
    """
    copied = copy.deepcopy(bones).to_empty(device=device).requires_grad_(False)
    with torch.no_grad():
        for ours, theirs in (
            (copied.named_parameters(), network.named_parameters()),
            (copied.named_buffers(), network.named_buffers()),
        ):
            values = dict(theirs)
            for name, tensor in ours:
                tensor.copy_(whole(values[name]))
    return copied


def whole(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor, on its device; every process must call this. Other tensors as they are."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_on_main(tensors: Mapping[str, Tensor], *, is_main: bool) -> dict[str, Tensor]:
    """Gather sharded tensors one by one, on the CPU of the main process; {} in others. Every process must call this.

    Args:
        is_main: whether this is the main process.
    """
    gathered = {}
    for name, tensor in tensors.items():
        full = whole(tensor)  # on the device no longer than it takes to copy it
        if is_main:
            gathered[name] = full.cpu()
    return gathered


def load_whole(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of whole tensors, which every process has, into a network that may be sharded.

    Raises:
        RuntimeError: as `load_state_dict`.
    """
    have = network.state_dict()
    network.load_state_dict(
        {name: rows_like(value, have[name]) if name in have else value for name, value in state.items()}
    )


def rows_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Split a tensor, which every process has whole, as `like` is split, on its device; otherwise as it is."""
    if not isinstance(like, DTensor):
        return tensor
    # Without a source rank nothing is sent around.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def own_rows(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextlib.contextmanager
def unsynchronised(network: FSDPModule) -> Iterator[None]:
    """Backward passes inside add up whole gradients in each process, to be averaged by the first one after it."""
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)
