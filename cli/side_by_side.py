"""Several `spk train` commands at the same time, each in a process of its own with its share of the cores.

A small network gains little from a second thread, but two of them gain all of it from a second process.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cli.console import EXIT_RESUMABLE
from pipeline.errors import TrainingError
from pipeline.reports import Progress

CHECKOUT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Training:
    run: Path
    process: subprocess.Popen[bytes]
    messages: IO[bytes]


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
    with contextlib.ExitStack() as stack:
        trainings = [_start(stack, run, arguments, len(runs)) for run, arguments in runs.items()]
        try:
            _follow(trainings, steps, progress)
        finally:  # an error of one of them, or Ctrl-C, which they have heard as well
            for training in trainings:
                training.process.terminate()  # to one that has ended this is nothing
            for training in trainings:
                training.process.wait()
    return not any(training.process.returncode for training in trainings)


def _start(stack: contextlib.ExitStack, run: Path, arguments: Sequence[str], count: int) -> _Training:
    resume = ["--resume"] if (run / "run.json").is_file() else []
    command = [sys.executable, "-m", "cli", "train", *arguments, "-o", str(run), "--quiet", *resume]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    paths = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": paths}
    messages = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
    stack.enter_context(messages)
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages
    )
    return _Training(run, process, messages)


def _follow(trainings: Sequence[_Training], steps: int, progress: Progress) -> None:
    """Report steps until all have ended, or one has failed."""
    running = True
    while running:
        running = any(training.process.poll() is None for training in trainings)
        done = {training.run.name: min(_steps_done(training.run), steps) for training in trainings}
        what = ", ".join(f"{name} {count}/{steps}" for name, count in done.items())
        progress(sum(done.values()), steps * len(done), what)
        for training in trainings:
            if training.process.poll() not in (None, 0, EXIT_RESUMABLE):
                training.messages.seek(0)
                text = training.messages.read().decode(errors="replace").strip()
                raise TrainingError(f"{training.run}: training failed\n{text}")
        time.sleep(POLL_SECONDS)


def _steps_done(run: Path) -> int:
    """The last step in the run's metrics; 0 before the first."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # the last line may be half written
            return int(json.loads(line)["step"])
    return 0
