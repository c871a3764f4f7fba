"""Starting from weights that were trained before: ours, or the published VRT's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from model.checkpoint import network_weights, read_info
from model.checkpoint_file import SUFFIX
from model.weights import read_weights
from pipeline.errors import CheckpointError

SPIKE_MODULES = ("spike_encoder.", "fusions.")
"""Where the parameters of the spike branch live; all others are the RGB network's, under the published names."""


@dataclass(frozen=True, slots=True)
class Initialised:
    """What `initialise` did: tensors taken, and the spike branch's that stayed fresh or were left out."""

    source: Path
    loaded: int
    fresh: int
    left_out: int

    def __str__(self) -> str:
        return (
            f"initialised from {self.source}: {self.loaded} tensors loaded, {self.fresh} of the spike branch fresh, "
            f"{self.left_out} left out"
        )


def initialise(network: nn.Module, path: Path) -> Initialised:
    """Load `path` into `network`: strictly into its RGB part, and into its spike branch if the file has one.

    Args:
        network: changed in place.
        path: a checkpoint of this program (its averaged weights), or a published `.pth` / `.safetensors`.

    Raises:
        CheckpointError: unreadable, or a tensor of the RGB part is missing, left over, or of another shape.
    """
    weights = _weights(path)
    state = network.state_dict()
    left_out = [name for name in weights if name not in state and name.startswith(SPIKE_MODULES)]
    used = {name: tensor for name, tensor in weights.items() if name not in left_out}
    has_branch = any(name.startswith(SPIKE_MODULES) for name in used)
    fresh = [name for name in state if name.startswith(SPIKE_MODULES) and name not in used]
    _check(path, used, state, [] if has_branch else fresh)
    network.load_state_dict(used, strict=False)
    return Initialised(path, len(used), len(fresh), len(left_out))


def _weights(path: Path) -> dict[str, Tensor]:
    fix = "check init=; it names a checkpoint of a run or a published file"
    if path.suffix == SUFFIX:
        weights = read_weights(path, fix)
        if "optimizer.steps" not in weights:
            return weights
        read_info(path)
        return network_weights(path)
    return read_weights(path, fix)


def _check(path: Path, used: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: list[str]) -> None:
    missing = [name for name in state if name not in used and name not in fresh]
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
