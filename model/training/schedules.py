"""The learning rate of every step."""

import bisect
import itertools
import math
from dataclasses import dataclass

from model.training.optim import OptimConfig

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TurningPoint:
    """A step, counted from 1 as in the log, and its learning rate."""

    step: int
    lr: float


def learning_rate(step: int, config: OptimConfig, steps: int, multiplier: float = 1.0) -> float:
    """The learning rate of step `step` (from 0) of `steps`: linear warm-up, then what `config.schedule` says.

    The first step has lr / warmup_steps, the step after the warm-up lr. A cosine begins at its top and approaches
    min_lr, cycle by cycle as `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts` does (Loshchilov and Hutter,
    "SGDR", 2017).

    Args:
        multiplier: of `config.lr`. `min_lr` is not multiplied, but lowered to the top where that lies below it.
    """
    top = config.lr * multiplier
    if step < config.warmup_steps:
        return top * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return top
    if config.schedule == "multistep":
        drops = bisect.bisect_right(config.milestones, step)
        return max(top * config.gamma**drops, min(config.min_lr, top))
    progress, weight = _cycle_at(step - config.warmup_steps, config, steps)
    top *= weight
    low = min(config.min_lr, top)
    return low + (top - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


def turning_points(config: OptimConfig, steps: int) -> list[TurningPoint]:
    """Where the learning rate of a run starts, peaks, drops and ends."""
    turns = [config.warmup_steps]
    if config.schedule == "multistep":
        turns += config.milestones
    elif config.periods and config.schedule == "cosine":
        ends = [config.warmup_steps + end for end in itertools.accumulate(config.periods)]
        turns += [*ends, *range(ends[-1], steps, config.periods[-1])]
    chosen = sorted({step for step in (0, *turns, steps - 1) if step < steps})
    return [TurningPoint(step + 1, learning_rate(step, config, steps)) for step in chosen]


def in_words(config: OptimConfig, steps: int) -> str:
    """The turning points as one line of text."""
    texts = [f"{point.lr:.3g} in step {point.step}" for point in turning_points(config, steps)]
    if len(texts) > _SHOWN:
        texts[_SHOWN - 2 : -1] = [f"{len(texts) - _SHOWN + 1} more turns"]
    return f"learning rate, {config.schedule}: {', '.join(texts)}"


def _cycle_at(step: int, config: OptimConfig, steps: int) -> tuple[float, float]:
    """How far step `step` after the warm-up is through its cosine cycle, in [0, 1], and that cycle's weight."""
    if not config.periods:
        return min(step / max(steps - config.warmup_steps, 1), 1.0), 1.0
    ends = list(itertools.accumulate(config.periods))
    cycle = min(bisect.bisect_right(ends, step), len(ends) - 1)
    period = config.periods[cycle]
    begun = ends[cycle] - period
    weight = config.restart_weights[cycle] if config.restart_weights else 1.0
    return (step - begun) % period / period, weight
