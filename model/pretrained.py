"""Starting from weights that were trained before: ours, or the published VRT's."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import network_weights, read_info
from model.checkpoint_file import SUFFIX
from model.instants import INSTANT_CHANNELS
from model.low_rank import is_update
from model.network import SpikeVRT, build_network
from model.weights import read_weights
from pipeline.errors import CheckpointError

SPIKE_MODULES = ("spike_encoder.", "fusions.")
"""Where the parameters of the spike branch live; all others are the RGB network's, under the published names."""
_FIRST_OF_SPIKES = "spike_encoder.pyramid.scales.0.0.weight"


@dataclass(frozen=True, slots=True)
class Initialised:
    """What `initialise` did.

    Attributes:
        loaded: tensors taken from the file.
        parameters: numbers in those of them that are learned.
        computed: constants (index tables, encodings) that the file lacks and that were computed.
        fresh: the spike branch's tensors that stayed as they were.
        left_out: the spike branch's tensors that the network has no use for.
        took_branch: whether a spike branch was loaded.
        difference: what `check_import` found, if it was asked.
    """

    source: Path
    loaded: int
    parameters: int
    computed: int
    fresh: int
    left_out: int
    took_branch: bool
    difference: float | None = None

    def __str__(self) -> str:
        counts = [f"{self.loaded} tensors with {self.parameters / 1e6:.2f} M parameters loaded"]
        counts += [f"{self.computed} constants computed"] if self.computed else []
        text = ", ".join([*counts, f"{self.fresh} of the spike branch fresh", f"{self.left_out} left out"])
        check = "" if self.difference is None else f"\nimport check: max|Δ| = {self.difference:g}"
        return f"initialised from {self.source}: {text}{check}"


def initialise(network: nn.Module, path: Path) -> Initialised:
    """Load `path` into `network`: strictly into its RGB part, and into its spike branch if the file has one.

    Only the constants that the network computes for itself (its buffers) may be missing.

    Args:
        network: changed in place.
        path: a checkpoint of this program (its averaged weights), or a published `.pth` / `.safetensors`. A network
            that is told instants may begin with the weights of one that was not.

    Raises:
        CheckpointError: unreadable, or a tensor of the RGB part is missing, left over, or of another shape.
    """
    weights = _weights(path)
    state = network.state_dict()
    if isinstance(network, SpikeVRT) and network.config.instants:
        weights = _without_instants_yet(weights, network.num_bins)
    left_out = [name for name in weights if name not in state and name.startswith(SPIKE_MODULES)]
    used = {name: tensor for name, tensor in weights.items() if name not in left_out}
    has_branch = any(name.startswith(SPIKE_MODULES) for name in used)
    fresh = [name for name in state if name.startswith(SPIKE_MODULES) and name not in used]
    constants = state.keys() - {name for name, _ in network.named_parameters()}
    computed = [name for name in state if name in constants and name not in used]
    _check(path, used, state, {*computed, *([] if has_branch else fresh)})
    network.load_state_dict(used, strict=False)
    return Initialised(
        source=path,
        loaded=len(used),
        parameters=sum(tensor.numel() for name, tensor in used.items() if name not in constants),
        computed=len(computed),
        fresh=len(fresh),
        left_out=len(left_out),
        took_branch=has_branch,
    )


@torch.no_grad()
def check_import(network: SpikeVRT, source: Path) -> float:
    """Compare the network without spikes and freshly fused, with the weights of `network`: max|Δ|, which is 0.

    Both restore one small random clip. Asked on the CPU, which repeats its results to the bit; a GPU may not.

    Args:
        network: RGB only, or with a spike branch that has learned nothing yet; its low-rank updates are left out of
            the other one.
        source: of its weights, for the message.

    Raises:
        CheckpointError: the two restore different clips, or one that is not finite.
    """
    config, training = network.config, network.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = _counterpart(network).eval()
        frames, (rows, columns) = config.neighbours + 1, (8 * size for size in config.window[1:])
        blurry = torch.rand(1, frames, 3, rows, columns)
        voxels = torch.randn(1, frames, max(network.num_bins, 1), rows, columns)
        told = [torch.rand(1, frames)] if config.instants else []
    difference = (network.eval()(blurry, voxels, *told) - other(blurry, voxels)).abs().max().item()
    network.train(training)
    if difference != 0:  # or not a number
        raise CheckpointError(
            f"{source}: import check: max|Δ| = {difference:g} between the network without spikes and freshly fused, "
            "where 0 is wanted",
            "check the file for weights that are not finite"
            if math.isnan(difference)
            else "report this: a fresh spike branch must not change what the network restores",
        )
    return difference


def _counterpart(network: SpikeVRT) -> SpikeVRT:
    """The same network without its spike branch, or with a fresh one if it has none."""
    fused = network.spike_encoder is not None
    heads = {} if fused else {"spike_heads": 1, "fusion_heads": 1}  # 1 divides every width
    fusion = "none" if fused else "cross_attention"
    config = replace(network.config, fusion=fusion, instants=False, **heads)
    other = build_network(config, max(network.num_bins, 1))
    rgb = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith(SPIKE_MODULES) and not is_update(name)
    }
    missing, unexpected = other.load_state_dict(rgb, strict=False)
    assert not unexpected and all(name.startswith(SPIKE_MODULES) for name in missing)
    return other


def _without_instants_yet(weights: Mapping[str, Tensor], num_bins: int) -> dict[str, Tensor]:
    """Weights for a network that is told instants; from one that was not, they begin by taking no notice of them."""
    first = weights.get(_FIRST_OF_SPIKES)
    if first is None or first.shape[1] != num_bins:
        return dict(weights)
    nothing = first.new_zeros(len(first), INSTANT_CHANNELS, *first.shape[2:])
    return {**weights, _FIRST_OF_SPIKES: torch.cat([first, nothing], dim=1)}


def _weights(path: Path) -> dict[str, Tensor]:
    fix = "check init=; it names a checkpoint of a run or a published file"
    if path.suffix == SUFFIX:
        weights = read_weights(path, fix)
        if "optimizer.steps" not in weights:
            return weights
        read_info(path)
        return network_weights(path)
    return read_weights(path, fix)


def _check(
    path: Path, used: Mapping[str, Tensor], state: Mapping[str, Tensor], optional: Collection[str]
) -> None:
    missing = [name for name in state if name not in used and name not in optional]
    unknown = [name for name in used if name not in state]
    both = [name for name in used if name in state]
    shapes = [
        f"{name} is {tuple(used[name].shape)}, wanted {tuple(state[name].shape)}"
        for name in both
        if used[name].shape != state[name].shape
    ]
    problems = [
        *(f"missing: {name}" for name in missing),
        *(f"unknown: {name}" for name in unknown),
        *(f"shape: {text}" for text in shapes),
    ]
    if problems:
        shown = "\n".join(f"  {line}" for line in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{path}: {len(problems)} tensors do not fit the network:\n{shown}{more}",
            "give network.* the size of the checkpoint's network",
        )
