"""The optimizer: which parameters learn how fast, and when."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from model.pretrained import SPIKE_MODULES

FLOW_NAMES = ("spynet", "pa_deform")
"""Modules whose parameters are tuned more gently: the optical flow and the flow-guided alignment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW, its schedule, and what is done to gradients and weights around it.

    Attributes:
        lr: learning rate at the top of the schedule.
        betas: decay of the two moments.
        weight_decay: decoupled weight decay.
        warmup_steps: steps of linear rise to `lr`.
        schedule: what follows the warm-up: "cosine" down to `min_lr`, once or with warm restarts; "multistep" drops;
            "constant".
        periods: steps of each cosine cycle; the last one repeats. Empty is one cycle that ends with the run.
        restart_weights: top of each cycle over `lr`. Empty is 1 for all.
        milestones: steps at which a multistep schedule multiplies the learning rate by `gamma`.
        gamma: factor of each milestone.
        min_lr: learning rate at the end of a cosine; milestones do not go below it.
        clip_norm: largest gradient norm; None never clips.
        ema_decay: decay of the moving average of the weights; 0 keeps none.
        accumulate: batches whose gradients make one step.
        flow_lr_multiplier: learning rate of the flow and alignment layers, over `lr`.
        flow_freeze_steps: steps before these layers start to learn.
        rgb_lr_multiplier: learning rate of the rest of the RGB network, which `init` may have loaded, over `lr`. The
            spike branch has `lr` itself.
        rgb_freeze_steps: steps before the rest of the RGB network starts to learn.

    Raises:
        ValueError: naming the field and its value.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 1000
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    periods: tuple[int, ...] = ()
    restart_weights: tuple[float, ...] = ()
    milestones: tuple[int, ...] = ()
    gamma: float = 0.5
    min_lr: float = 1e-7
    clip_norm: float | None = 1.0
    ema_decay: float = 0.999
    accumulate: int = 1
    flow_lr_multiplier: float = 0.25
    flow_freeze_steps: int = 0
    rgb_lr_multiplier: float = 1.0
    rgb_freeze_steps: int = 0

    def __post_init__(self) -> None:
        if not self.lr > 0 or not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"lr {self.lr} and min_lr {self.min_lr}: wanted 0 <= min_lr <= lr and lr > 0")
        if not all(0 <= value < 1 for value in (*self.betas, self.ema_decay)):
            raise ValueError(f"betas {self.betas} and ema_decay {self.ema_decay} must be in [0, 1)")
        not_negative = ("warmup_steps", "weight_decay")
        of_parts = ("flow_lr_multiplier", "flow_freeze_steps", "rgb_lr_multiplier", "rgb_freeze_steps")
        for name in (*not_negative, *of_parts):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm {self.clip_norm} is not positive (null never clips)")
        if self.accumulate < 1:
            raise ValueError(f"accumulate {self.accumulate} is below 1")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule not in ("cosine", "multistep", "constant"):
            raise ValueError(f"schedule {self.schedule!r} is not cosine, multistep or constant")
        for name, schedule in (
            ("periods", "cosine"),
            ("restart_weights", "cosine"),
            ("milestones", "multistep"),
        ):
            if getattr(self, name) and self.schedule != schedule:
                raise ValueError(f"{name} {getattr(self, name)}: schedule {self.schedule} has none")
        if any(period < 1 for period in self.periods):
            raise ValueError(f"periods {self.periods}: a cycle has 1 step at least")
        if self.restart_weights and len(self.restart_weights) != len(self.periods):
            raise ValueError(
                f"restart_weights {self.restart_weights}: wanted one for each of periods {self.periods}"
            )
        if any(not weight > 0 for weight in self.restart_weights):
            raise ValueError(f"restart_weights {self.restart_weights} must be positive")
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("milestones (): schedule multistep needs some")
        if any(not before < after for before, after in itertools.pairwise((0, *self.milestones))):
            raise ValueError(f"milestones {self.milestones} must be positive and increase")
        if self.milestones and self.milestones[0] < self.warmup_steps:
            raise ValueError(
                f"milestones {self.milestones} begin within the warm-up, warmup_steps {self.warmup_steps}"
            )
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma {self.gamma} is not in (0, 1]")


def part_of(name: str) -> Literal["rgb", "spikes", "flow"]:
    """The part of the network that a parameter belongs to, by its dotted name."""
    if any(module in FLOW_NAMES for module in name.split(".")):
        return "flow"
    return "spikes" if name.startswith(SPIKE_MODULES) else "rgb"


def parameter_groups(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """The parameters that learn, by part: the RGB network, the spike branch, flow and alignment.

    Each group has, beside its `params`, the `name` of its part, its `multiplier` of the learning rate, and for how many
    steps it is frozen, `freeze_steps`. A part without parameters that learn has no group.
    """
    parts: dict[str, list[nn.Parameter]] = {"rgb": [], "spikes": [], "flow": []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parts[part_of(name)].append(parameter)
    multipliers = {"rgb": config.rgb_lr_multiplier, "flow": config.flow_lr_multiplier}
    freeze_steps = {"rgb": config.rgb_freeze_steps, "flow": config.flow_freeze_steps}
    return [
        {
            "params": parameters,
            "name": part,
            "multiplier": multipliers.get(part, 1.0),
            "freeze_steps": freeze_steps.get(part, 0),
        }
        for part, parameters in parts.items()
        if parameters
    ]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a part of the network learns: its parameters, learning rate over that of the config, and steps frozen."""

    part: str
    parameters: int
    multiplier: float
    freeze_steps: int

    def __str__(self) -> str:
        frozen = f", frozen for {self.freeze_steps} steps" if self.freeze_steps else ""
        return f"{self.part}: {self.parameters / 1e6:.2f} M parameters, learning rate x {self.multiplier:g}{frozen}"


def paces_of(groups: Iterable[Mapping[str, Any]]) -> tuple[Pace, ...]:
    """What `parameter_groups`, or the groups of an optimizer made of them, say of each part."""
    return tuple(
        Pace(
            group["name"],
            sum(parameter.numel() for parameter in group["params"]),
            group["multiplier"],
            group["freeze_steps"],
        )
        for group in groups
    )


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the `parameter_groups`."""
    groups = parameter_groups(network, config)
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of every group, by its name."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}


def frozen_groups(optimizer: torch.optim.Optimizer, step: int) -> tuple[bool, ...]:
    """Which of the optimizer's groups do not learn in step `step`."""
    return tuple(step < group["freeze_steps"] for group in optimizer.param_groups)


def freeze(optimizer: torch.optim.Optimizer, frozen: Sequence[bool]) -> None:
    """Let the groups that are not `frozen` learn, and no others.

    A frozen parameter has no gradient, so the optimizer leaves it alone: its moments and their bias correction begin
    when it is released.
    """
    for group, is_frozen in zip(optimizer.param_groups, frozen, strict=True):
        for parameter in group["params"]:
            parameter.requires_grad_(not is_frozen)
