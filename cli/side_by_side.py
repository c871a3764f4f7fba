"""Several `spk train` commands at the same time, each in a process of its own with its share of the cores.

A small network gains little from a second thread, but two of them gain all of it from a second process.
"""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.console import EXIT_RESUMABLE
from cli.training_process import TrainingProcess, training_process
from pipeline.reports import Progress

POLL_SECONDS = 0.5


def train_side_by_side(runs: Mapping[Path, Sequence[str]], steps: int, progress: Progress) -> bool:
    """Train into several run folders at once; a folder that has a run already is gone on with.

    Args:
        runs: for each folder the config and overrides that `spk train` takes.
        steps: of each training; progress is reported over the steps of all of them.

    Returns:
        Whether all came to their end, and none was interrupted.

    Raises:
        TrainingError: one of them failed; the others have stopped, each with a checkpoint.
    """
    threads = max(1, (os.cpu_count() or 1) // len(runs))
    with contextlib.ExitStack() as stack:
        trainings = []
        for run, arguments in runs.items():
            resume = ["--resume"] if (run / "run.json").is_file() else []
            process = training_process(run, [*arguments, *resume], threads)
            trainings.append(stack.enter_context(process))
        try:
            _follow(trainings, steps, progress)
        finally:  # an error of one of them, or Ctrl-C, which they have heard as well
            for training in trainings:
                training.process.terminate()  # all at once, before one after the other is waited for
    return not any(training.process.returncode for training in trainings)


def _follow(trainings: Sequence[TrainingProcess], steps: int, progress: Progress) -> None:
    """Report steps until all have ended, or one has failed."""
    running = True
    while running:
        running = any(training.process.poll() is None for training in trainings)
        done = {training.run.name: min(training.steps_done(), steps) for training in trainings}
        what = ", ".join(f"{name} {count}/{steps}" for name, count in done.items())
        progress(sum(done.values()), steps * len(done), what)
        for training in trainings:
            training.require_success(EXIT_RESUMABLE)
        time.sleep(POLL_SECONDS)
