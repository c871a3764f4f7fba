"""The stretches of a run: steps after one another that cost the same time and memory.

Phases have clips of other sizes, and layers are frozen in the first steps: the graph grows when they begin to learn.
What fits in the first hour need not fit in the tenth.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from model.training.config import TrainConfig
from model.training.phases import Phase, phases_of
from pipeline.clips import ClipConfig
from pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Steps [start, stop) of a run.

    Attributes:
        clip: what clips are like in it.
        clips: that a process takes in a step, all batches together.
        flow_frozen: whether the flow and alignment layers do not learn yet.
    """

    start: int
    stop: int
    clip: ClipConfig
    clips: int
    flow_frozen: bool

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.stop - self.start

    def __str__(self) -> str:
        size = f"{self.clip.num_frames}x{self.clip.crop}x{self.clip.crop}"
        return f"{size}, flow frozen" if self.flow_frozen else size


def stretches_of(config: TrainConfig) -> tuple[Stretch, ...]:
    """The stretches of a run, in order and without gaps."""
    phases = phases_of(config)
    pairs = [
        (phase, bounds) for bounds in pairwise(_bounds(config)) for phase in phases if _in(phase, bounds[0])
    ]
    return tuple(
        Stretch(
            start=start,
            stop=stop,
            clip=phase.clip,
            clips=phase.batch_size * config.optim.accumulate,
            flow_frozen=start < config.optim.flow_freeze_steps,
        )
        for phase, (start, stop) in pairs
    )


def divisible_by(config: TrainConfig) -> int:
    """The number whose divisors are the numbers of batches that a step's clips can be taken in, in every stretch."""
    return math.gcd(*(stretch.clips for stretch in stretches_of(config)))


def with_clips(config: TrainConfig, clips: int) -> TrainConfig:
    """The run with so many clips a step, all in one batch.

    Raises:
        UsageError: phases have batch sizes of their own.
    """
    if own := [phase.start for phase in config.phases if phase.batch_size]:
        raise UsageError(
            f"clips of a step: the phases from steps {own} have batch sizes of their own",
            "leave out --batch, and change batch_size in these phases",
        )
    return replace(config, batch_size=clips, optim=replace(config.optim, accumulate=1))


def taken_in(config: TrainConfig, batches: int) -> TrainConfig:
    """The run that takes the clips of each step in so many batches."""

    def batch(size: int) -> int:
        return max(size * config.optim.accumulate // batches, 1)

    phases = [replace(one, batch_size=one.batch_size and batch(one.batch_size)) for one in config.phases]
    optim = replace(config.optim, accumulate=batches)
    return replace(config, batch_size=batch(config.batch_size), phases=tuple(phases), optim=optim)


def with_batches_up_to(config: TrainConfig, most: int) -> TrainConfig:
    """The run whose steps end after `most` of their batches."""
    return replace(config, optim=replace(config.optim, accumulate=min(config.optim.accumulate, most)))


def with_crop_limit(config: TrainConfig, limit: int) -> TrainConfig:
    """The run with no crop above `limit` pixels a side."""
    phases = [replace(phase, crop=phase.crop and min(phase.crop, limit)) for phase in config.phases]
    clip = replace(config.clip, crop=min(config.clip.crop, limit))
    return replace(config, clip=clip, phases=tuple(phases))


def in_miniature(config: TrainConfig, steps: int) -> TrainConfig:
    """A run with the same stretches, each of `steps` steps.

    It passes from one to the next as the run would, with the memory of the one before still held.
    """
    moved = {bound: steps * number for number, bound in enumerate(_bounds(config))}
    optim = replace(
        config.optim,
        flow_freeze_steps=moved[min(config.optim.flow_freeze_steps, config.steps)],
        rgb_freeze_steps=moved[min(config.optim.rgb_freeze_steps, config.steps)],
    )
    phases = [
        replace(phase, start=moved[phase.start]) for phase in config.phases if phase.start < config.steps
    ]
    return replace(config, steps=moved[config.steps], phases=tuple(phases), optim=optim)


def _bounds(config: TrainConfig) -> list[int]:
    """The steps where a stretch begins, and the last one's end."""
    frozen = (config.optim.flow_freeze_steps, config.optim.rgb_freeze_steps)
    starts = (phase.start for phase in config.phases)
    return sorted({0, *(min(step, config.steps) for step in (*frozen, *starts)), config.steps})


def _in(phase: Phase, step: int) -> bool:
    return phase.start <= step < phase.stop
