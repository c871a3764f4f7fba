"""`spk train --check-resume`: a training that is killed and resumed, beside one that is not, in real processes."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.training_process import TrainingProcess, training_process
from pipeline.errors import TrainingError
from pipeline.reports import Progress

if TYPE_CHECKING:
    from model.training.same_run import Part

WORKERS_BEFORE, WORKERS_AFTER = 0, 2
"""Threads that read clips before the kill and after it; they must not matter."""
POLL_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeCheck:
    """What was found.

    Attributes:
        ok: whether the resumed run is the uninterrupted one; see `is_same_run`.
        steps: before the kill, and again after it.
        kills: processes that were killed.
        parts: the two runs compared.
        repeated: the uninterrupted run and a repetition of it, compared; only where the first two differ.
    """

    ok: bool
    steps: int
    kills: int
    parts: "list[Part]"
    repeated: "list[Part]"

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object, to which the command adds `run`."""
        return {
            "ok": self.ok,
            "steps": self.steps,
            "kills": self.kills,
            "parts": [part.to_json() for part in self.parts],
            "repeated": [part.to_json() for part in self.repeated],
        }


def check_resume(
    folder: Path, arguments: Sequence[str], steps: int, *, deterministic: bool, progress: Progress
) -> ResumeCheck:
    """Train 2·`steps` steps in one process; `steps`, a kill -9, and `steps` in two more; and compare all that is left.

    The kill falls on a process that has saved step `steps` and goes on. On a CPU every bit must be equal. On a CUDA
    device some kernels add in an order of chance, so that not even two undisturbed runs are: where a difference is
    found, the undisturbed run is repeated, and what differs then too is no fault of the resumed one. The clips of
    every step and the random numbers must be equal there as well.

    Args:
        folder: of the runs, new or empty.
        arguments: the config and overrides that `spk train` takes.
        deterministic: use deterministic kernels where there are any, to leave less to chance.

    Raises:
        TrainingError: a training failed, or came to its end before it could be killed.
    """
    from model.training.same_run import compare_runs, is_same_run

    fixed = [
        f"steps={2 * steps}",
        f"checkpoint_every={steps}",
        "log_every=1",
        "validate_every=0",
        "sample_every=0",
    ]
    words = [*arguments, *fixed, *(["parallel.deterministic=true"] if deterministic else [])]
    whole, resumed = folder / "uninterrupted", folder / "resumed"
    last = 2 * steps

    _train(whole, [*words, f"workers={WORKERS_AFTER}"], last, progress)
    _train_and_kill(resumed, [*words, f"workers={WORKERS_BEFORE}"], steps, progress)
    _train(resumed, [*words, f"workers={WORKERS_AFTER}", "--resume"], last, progress)
    parts, repeated = compare_runs(whole, resumed, last), []
    if not all(part.equal for part in parts):
        again = folder / "repeated"
        _train(again, [*words, f"workers={WORKERS_AFTER}"], last, progress)
        repeated = compare_runs(whole, again, last)
    ok = is_same_run(parts, repeated)
    return ResumeCheck(ok=ok, steps=steps, kills=1, parts=parts, repeated=repeated)


def _train(run: Path, arguments: Sequence[str], steps: int, progress: Progress) -> None:
    with training_process(run, arguments, _cores()) as training:
        while training.process.poll() is None:
            _report(training, steps, progress)
        training.require_success()


def _train_and_kill(run: Path, arguments: Sequence[str], steps: int, progress: Progress) -> None:
    """Start a training, and kill it when it has saved step `steps` and gone on from there."""
    with training_process(run, arguments, _cores()) as training:
        while training.steps_done() <= steps:
            if training.process.poll() is not None:
                break
            _report(training, 2 * steps, progress)
        training.process.kill()
        training.process.wait()
        training.require_success(-signal.SIGKILL)
        if training.steps_done() == 2 * steps:
            raise TrainingError(
                f"{run}: the {steps} steps after its checkpoint took less time than to kill it",
                "check more of them with --check-steps",
            )


def _report(training: TrainingProcess, steps: int, progress: Progress) -> None:
    progress(min(training.steps_done(), steps), steps, training.run.name)
    time.sleep(POLL_SECONDS)


def _cores() -> int:
    """What the trainings of a user would take, the same for each: a sum over other threads has other last bits."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
