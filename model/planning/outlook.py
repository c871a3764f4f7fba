"""What is to be expected of a whole run, from what its parts cost."""

import math
from collections.abc import Mapping, Sequence

from model.planning.plan import Outlook, PlannedRun
from model.planning.rehearsal import Rehearsal, StretchCost
from model.planning.stretches import Stretch
from model.training.config import TrainConfig

_ENOUGH = 0.7
"""Reading may take this part of the time of computing: it is not always as fast as when nothing else is done."""


def predict(
    stretches: Sequence[Stretch],
    costs: Sequence[StretchCost],
    peak_bytes: int,
    *,
    times: float,
    clips_per_s: float,
    clip_pixels: int,
) -> Outlook:
    """What steps will cost whose clips are read while the step before is computed.

    Args:
        costs: of the stretches, measured.
        times: how many of the measured steps make one of the run.
        clips_per_s: that are read.
        clip_pixels: of these clips.
    """
    computing = waiting = 0.0
    for stretch, cost in zip(stretches, costs, strict=True):
        compute = cost.step_s * (1 - cost.data_share) * times
        read = stretch.clips * (_pixels(stretch) / clip_pixels) / clips_per_s
        computing += stretch.steps * compute
        waiting += stretch.steps * max(read - compute, 0.0)
    steps = stretches[-1].stop
    total = computing + waiting
    return Outlook(step_s=total / steps, data_share=waiting / total, peak_bytes=peak_bytes)


def observed(stretches: Sequence[Stretch], rehearsal: Rehearsal) -> Outlook:
    """What steps did cost."""
    pairs = list(zip(stretches, rehearsal.stretches, strict=True))
    total = sum(stretch.steps * cost.step_s for stretch, cost in pairs)
    waited = sum(stretch.steps * cost.step_s * cost.data_share for stretch, cost in pairs)
    return Outlook(
        step_s=total / stretches[-1].stop, data_share=waited / total, peak_bytes=rehearsal.peak_bytes
    )


def choose_workers(clips_per_s: Mapping[int, float], wanted: float) -> int:
    """The fewest threads that read `wanted` clips a second with something to spare, or else the best."""
    enough = [workers for workers, rate in clips_per_s.items() if rate * _ENOUGH >= wanted]
    return min(enough, default=max(clips_per_s, key=lambda workers: clips_per_s[workers]))


def whole_run(
    config: TrainConfig,
    outlook: Outlook,
    checked: Rehearsal,
    *,
    checkpoint_s: float,
    validated: tuple[int, int],
) -> PlannedRun:
    """What all of a run takes.

    Args:
        outlook: of its steps.
        checked: a rehearsal that ended with a validation and a checkpoint.
        checkpoint_s: of a checkpoint alone.
        validated: clips of a validation, and of the one in the rehearsal.
    """
    every, rehearsed = validated
    validations = _times(config.steps, config.validate_every) if rehearsed else 0
    validation_s = max(checked.end_s - checkpoint_s, 0.0) * every / rehearsed if rehearsed else 0.0
    checkpoints = max(_times(config.steps, config.checkpoint_every), 1)
    if validations:  # each may be the best so far, and at most these are not due at the same time
        both = _times(config.steps, math.lcm(config.checkpoint_every or config.steps, config.validate_every))
        checkpoints += validations - min(both, validations)
    steps_s = outlook.step_s * config.steps
    return PlannedRun(
        seconds=checked.start_s + steps_s + validations * validation_s + checkpoints * checkpoint_s,
        start_s=checked.start_s,
        validations=validations,
        validation_s=validation_s,
        checkpoints=checkpoints,
        checkpoint_s=checkpoint_s,
        checkpoint_bytes=checked.checkpoint_bytes,
        disk_bytes=(max(config.keep_checkpoints, 2) + 2)
        * checked.checkpoint_bytes,  # best, and one in the making
    )


def _times(steps: int, every: int) -> int:
    """How often something is done that is done every so many steps, and at the end; 0 is never."""
    return -(-steps // every) if every else 0


def _pixels(stretch: Stretch) -> int:
    return stretch.clip.num_frames * stretch.clip.crop**2
