"""Fine-tuning a trained network by low-rank updates: which layers get one, what else learns, and merging them.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). All that does not learn has no gradient, no
moments and no averaged copy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from model.low_rank import UPDATE, Linear
from pipeline.errors import ConfigError

LAYERS = {
    "qkv": ("*.qkv_self", "*.qkv_mut"),
    "proj": ("*.proj",),
    "mlp": ("*.mlp.fc*",),
    "fuse": ("*.pa_fuse.fc*",),
    "linear": ("*.linear", "*.linear1", "*.linear2"),
}
"""Names for kinds of linear layers of the RGB network, and the patterns of their names in the state dict."""
_SPIKE_BRANCH = ("spike_encoder", "fusions")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank updates of a network that starts from `init`; everything that is not named here stays as it was there.

    Patterns are of names in the state dict (`stage7`, `stage[67].*.proj`, `*.norm1`) and stand for all that lies
    below. "*" also matches dots.

    Attributes:
        rank: of the updates; 0 trains the whole network instead.
        alpha: updates are scaled by alpha / rank, so that the rank can be changed with the learning rate kept.
        layers: linear layers of the RGB network that get an update: kinds (qkv, proj: the attention's; mlp; fuse: of
            aligned neighbours; linear: around groups of blocks) or patterns.
        train: parts that learn in full: what is not in the checkpoint, by default.

    Raises:
        ValueError: naming the field and its value.
    """

    rank: int = 0
    alpha: float = 16.0
    layers: tuple[str, ...] = ("qkv", "proj")
    train: tuple[str, ...] = _SPIKE_BRANCH

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rank {self.rank} is negative (0 trains the whole network)")
        if not self.alpha > 0:
            raise ValueError(f"alpha {self.alpha} is not positive")
        if not self.layers:
            raise ValueError(f"layers is empty; kinds are {', '.join(LAYERS)} (rank: 0 makes no updates)")

    @property
    def scale(self) -> float:
        """What an update is multiplied by."""
        return self.alpha / self.rank if self.rank else 0.0


class Trainable(NamedTuple):
    """Numbers that learn, all numbers, and layers with a low-rank update."""

    parameters: int
    total: int
    layers: int

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M of {self.total / 1e6:.2f} M parameters learn, "
            f"with low-rank updates of {self.layers} layers"
        )


def adapt(network: nn.Module, config: LoraConfig) -> None:
    """Give the layers their updates and freeze everything else, in place; what the network gives stays the same.

    Does nothing at rank 0.

    Raises:
        ConfigError: a name or pattern chooses nothing.
    """
    if not config.rank:
        return
    network.requires_grad_(False)
    for pattern in config.train:
        chosen = [value for name, value in network.named_parameters() if _matches(name, [pattern])]
        if not chosen and pattern not in _SPIKE_BRANCH:  # which an RGB network lacks
            raise ConfigError(
                f"lora.train: {pattern!r} names no parameter of the network",
                f"give the start of a name, or a pattern: {_some(dict(network.named_children()))}",
            )
        for parameter in chosen:
            parameter.requires_grad_(True)
    linears = {name: module for name, module in network.named_modules() if isinstance(module, Linear)}
    for kind in config.layers:
        layers = [module for name, module in linears.items() if _matches(name, LAYERS.get(kind, [kind]))]
        if not layers:
            raise ConfigError(
                f"lora.layers: {kind!r} names no linear layer of the RGB network",
                f"kinds are {', '.join(LAYERS)}; or give a pattern of names: {_some(linears)}",
            )
        for layer in layers:
            if layer.lora is None and not layer.weight.requires_grad:
                layer.adapt(config.rank, config.scale)


def trainable(network: nn.Module) -> Trainable:
    """How much of a network learns, as it stands."""
    parameters = list(network.parameters())
    return Trainable(
        parameters=sum(value.numel() for value in parameters if value.requires_grad),
        total=sum(value.numel() for value in parameters),
        layers=sum(isinstance(module, Linear) and module.lora is not None for module in network.modules()),
    )


def merge(weights: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Weights of a network without updates that restores the same: W + scale * up down for each adapted layer."""
    down, up = f".{UPDATE}.down", f".{UPDATE}.up"
    merged = {name: value for name, value in weights.items() if not name.endswith((down, up))}
    for name in weights.keys() - merged.keys():
        if name.endswith(down):
            layer = name.removesuffix(down)
            update = weights[layer + up].double() @ weights[name].double()
            weight = weights[f"{layer}.weight"]
            merged[f"{layer}.weight"] = (weight.double() + config.scale * update).to(weight.dtype)
    return merged


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def _some(names: Iterable[str], most: int = 4) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (" …" if len(shown) > most else "")
