"""The stretches of a run: steps after one another that cost the same time and memory.

The flow and alignment layers are frozen in the first steps, and the graph grows when they begin to learn: what fits in
the first hour need not fit in the tenth.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from model.training.config import TrainConfig
from pipeline.clips import ClipConfig


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
    return tuple(
        Stretch(
            start=start,
            stop=stop,
            clip=config.clip,
            clips=config.batch_size * config.optim.accumulate,
            flow_frozen=start < config.optim.flow_freeze_steps,
        )
        for start, stop in pairwise(_bounds(config))
    )


def divisible_by(config: TrainConfig) -> int:
    """The number whose divisors are the numbers of batches that a step's clips can be taken in, in every stretch."""
    return math.gcd(*(stretch.clips for stretch in stretches_of(config)))


def with_clips(config: TrainConfig, clips: int) -> TrainConfig:
    """The run with so many clips a step, all in one batch."""
    return replace(config, batch_size=clips, optim=replace(config.optim, accumulate=1))


def taken_in(config: TrainConfig, batches: int) -> TrainConfig:
    """The run that takes the clips of each step in so many batches."""
    clips = config.batch_size * config.optim.accumulate
    return replace(config, batch_size=clips // batches, optim=replace(config.optim, accumulate=batches))


def with_batches_up_to(config: TrainConfig, most: int) -> TrainConfig:
    """The run whose steps end after `most` of their batches."""
    return replace(config, optim=replace(config.optim, accumulate=min(config.optim.accumulate, most)))


def with_crop_limit(config: TrainConfig, limit: int) -> TrainConfig:
    """The run with no crop above `limit` pixels a side."""
    return replace(config, clip=replace(config.clip, crop=min(config.clip.crop, limit)))


def in_miniature(config: TrainConfig, steps: int) -> TrainConfig:
    """A run with the same stretches, each of `steps` steps.

    It passes from one to the next as the run would, with the memory of the one before still held.
    """
    moved = {bound: steps * number for number, bound in enumerate(_bounds(config))}
    frozen = moved[min(config.optim.flow_freeze_steps, config.steps)]
    optim = replace(config.optim, flow_freeze_steps=frozen)
    return replace(config, steps=moved[config.steps], optim=optim)


def _bounds(config: TrainConfig) -> list[int]:
    """The steps where a stretch begins, and the last one's end."""
    return sorted({0, min(config.optim.flow_freeze_steps, config.steps), config.steps})
