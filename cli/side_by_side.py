"""Several `spk train` commands at the same time, each in a process of its own with its share of the cores.

A small network gains little from a second thread, but two of them gain all of it from a second process.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import EXIT_RESUMABLE
from cli.training_process import TrainingProcess, training_process
from pipeline.reports import Progress

if TYPE_CHECKING:
    from model.training.signals import StopRequest

POLL_SECONDS = 0.5


def train_side_by_side(runs: Mapping[Path, Sequence[str]], steps: int, progress: Progress) -> bool:
    """Train into several run folders at once; a folder that has a run already is gone on with.

    A request to stop (SIGTERM, SIGHUP, SIGUSR1, Ctrl-C) is passed on to all of them, and waited for.

    Args:
        runs: for each folder the config and overrides that `spk train` takes.
        steps: of each training; progress is reported over the steps of all of them.

    Returns:
        Whether all came to their end, and none was interrupted.

    Raises:
        TrainingError: one of them failed; the others have stopped, each with a checkpoint.
    """
    from model.training.signals import StopRequest

    threads = max(1, (os.cpu_count() or 1) // len(runs))
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        trainings = []
        for run, arguments in runs.items():
            resume = ["--resume"] if (run / "run.json").is_file() else []
            process = training_process(run, [*arguments, *resume], threads)
            trainings.append(stack.enter_context(process))
        try:
            _follow(trainings, steps, progress, stop)
        finally:  # an error of one of them, or a request to stop, which they may have heard as well
            for training in trainings:
                training.process.terminate()  # all at once, before one after the other is waited for
        for training in trainings:
            training.process.wait()
            # One that was still starting has been ended by the signal itself, with nothing to keep.
            training.require_success(EXIT_RESUMABLE, -signal.SIGTERM)
    return not stop.requested and not any(training.process.returncode for training in trainings)


def _follow(
    trainings: Sequence[TrainingProcess], steps: int, progress: Progress, stop: "StopRequest"
) -> None:
    """Report steps until all have ended, one has failed, or they are to stop."""
    running = True
    while running and not stop.requested:
        running = any(training.process.poll() is None for training in trainings)
        done = {training.run.name: min(training.steps_done(), steps) for training in trainings}
        what = ", ".join(f"{name} {count}/{steps}" for name, count in done.items())
        progress(sum(done.values()), steps * len(done), what)
        for training in trainings:
            training.require_success(EXIT_RESUMABLE)
        time.sleep(POLL_SECONDS)
