"""The optimizer: which parameters learn how fast, and when."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

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
        min_lr: learning rate at the end of the cosine.
        clip_norm: largest gradient norm; None never clips.
        ema_decay: decay of the moving average of the weights; 0 keeps none.
        accumulate: batches whose gradients make one step.
        flow_lr_multiplier: learning rate of the flow and alignment layers, over `lr`.
        flow_freeze_steps: steps before these layers start to learn.

    Raises:
        ValueError: naming the field and its value.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 1000
    min_lr: float = 1e-7
    clip_norm: float | None = 1.0
    ema_decay: float = 0.999
    accumulate: int = 1
    flow_lr_multiplier: float = 0.25
    flow_freeze_steps: int = 0

    def __post_init__(self) -> None:
        if not self.lr > 0 or not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"lr {self.lr} and min_lr {self.min_lr}: wanted 0 <= min_lr <= lr and lr > 0")
        if not all(0 <= value < 1 for value in (*self.betas, self.ema_decay)):
            raise ValueError(f"betas {self.betas} and ema_decay {self.ema_decay} must be in [0, 1)")
        if (
            min(self.warmup_steps, self.flow_freeze_steps) < 0
            or min(self.weight_decay, self.flow_lr_multiplier) < 0
        ):
            raise ValueError(
                "warmup_steps, flow_freeze_steps, weight_decay and flow_lr_multiplier must not be negative"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm {self.clip_norm} is not positive (null never clips)")
        if self.accumulate < 1:
            raise ValueError(f"accumulate {self.accumulate} is below 1")


def learning_rate(step: int, config: OptimConfig, steps: int) -> float:
    """The learning rate of step `step` of `steps`: linear warm-up, then a cosine down to `min_lr`.

    The first step has lr / warmup_steps, the step after the warm-up lr, and the last one approaches min_lr.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = min((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 1.0)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def is_flow(name: str) -> bool:
    """Whether a parameter belongs to the optical flow or the flow-guided alignment, by its dotted name."""
    return any(part in FLOW_NAMES for part in name.split("."))


def flow_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that `flow_lr_multiplier` and `flow_freeze_steps` are about."""
    return (parameter for name, parameter in network.named_parameters() if is_flow(name))


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over one group of ordinary parameters and one of flow parameters, each with `name` and `multiplier`."""
    ordinary = [parameter for name, parameter in network.named_parameters() if not is_flow(name)]
    groups = [{"params": ordinary, "name": "network", "multiplier": 1.0}]
    if flow := list(flow_parameters(network)):
        groups.append({"params": flow, "name": "flow", "multiplier": config.flow_lr_multiplier})
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of every group, by its name."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
