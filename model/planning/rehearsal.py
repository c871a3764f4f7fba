"""A training run in miniature, in a process of its own: what its steps, its validation and its checkpoints cost."""

import itertools
import json
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model.planning.apart import ProcessDiedError, call_apart
from model.planning.stretches import in_miniature
from model.train import train
from model.training.config import TrainConfig
from pipeline.errors import TrainingError
from pipeline.machine import peak_memory_bytes
from pipeline.reports import Progress, no_progress

WARM_STEPS = 2
"""Steps at the start of each stretch that are not timed: kernels are chosen, compiled and loaded in them."""
TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class StretchCost:
    """What a step costs in one stretch of a run.

    Attributes:
        step_s: median seconds.
        data_share: the part of them that was spent waiting for clips.
    """

    step_s: float
    data_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """What a run in miniature cost.

    Attributes:
        stretches: of the run, in order.
        peak_bytes: the most memory held: by the allocator of a CUDA device, or by the whole process on a CPU.
        start_s: from nothing to the end of the first step.
        end_s: from the end of the last step to that of the run: a checkpoint, and the validation if there is one.
        checkpoint_bytes: size of a checkpoint.
    """

    stretches: tuple[StretchCost, ...]
    peak_bytes: int
    start_s: float
    end_s: float
    checkpoint_bytes: int


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A rehearsal that ended for want of memory, and what was said."""

    text: str


def rehearse(
    config: TrainConfig, folder: Path, *, validate: bool = False, progress: Progress = no_progress
) -> Rehearsal | OutOfMemory:
    """Train a few steps of every stretch of `config` for real, on its device and with clips of its store.

    Args:
        folder: a new one to write the run to.
        validate: also validate at the end, on one clip of each sequence.

    Raises:
        SpkError: as `train`.
    """
    small = in_miniature(config, WARM_STEPS + TIMED_STEPS)
    small = replace(
        small,
        log_every=1,
        checkpoint_every=0,
        sample_every=0,
        validate_every=small.steps if validate and config.validate_every else 0,
        validate_clips=1,
    )
    try:
        return call_apart(_train, small, folder, progress=progress)
    except ProcessDiedError as death:
        if death.exit_code == -signal.SIGKILL:
            return OutOfMemory("killed by the system, which does so when memory runs out")
        raise TrainingError(
            f"the process that tried {config.store} ended with exit code {death.exit_code}",
            "run `spk doctor`, and the same training with `spk train` to see what it says",
        ) from death


def _train(config: TrainConfig, folder: Path, *, progress: Progress) -> Rehearsal | OutOfMemory:
    on_cuda = torch.cuda.is_available() and config.parallel.device != "cpu"
    moments = [time.perf_counter()]

    def watch(done: int, total: int, what: str) -> None:
        if done == len(moments):  # a step more is done
            moments.append(time.perf_counter())
        progress(done, total, what)

    try:
        report = train(config, folder, progress=watch)
    except (torch.OutOfMemoryError, MemoryError, TrainingError) as error:
        if isinstance(error, TrainingError) and "out of memory" not in error.problem:
            raise
        return OutOfMemory(str(error).splitlines()[0])
    end_s = time.perf_counter() - moments[-1]
    peak = torch.cuda.max_memory_reserved() if on_cuda else peak_memory_bytes()
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return Rehearsal(
        stretches=_costs([b - a for a, b in itertools.pairwise(moments)], list(lines)),
        peak_bytes=peak,
        start_s=moments[1] - moments[0],
        end_s=end_s,
        checkpoint_bytes=report.checkpoint.stat().st_size,
    )


def _costs(seconds: Sequence[float], lines: Sequence[Mapping[str, Any]]) -> tuple[StretchCost, ...]:
    shares = {line["step"]: line["data_share"] for line in lines if "data_share" in line}
    every = WARM_STEPS + TIMED_STEPS
    return tuple(
        StretchCost(
            step_s=statistics.median(seconds[first + WARM_STEPS : first + every]),
            data_share=statistics.median(
                shares[step + 1] for step in range(first + WARM_STEPS, first + every)
            ),
        )
        for first in range(0, len(seconds), every)
    )
