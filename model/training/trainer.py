"""The training loop: which step comes next, and when to look, to save and to stop."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from model.training.events import Best, Listener, Milestone, Seen, StepMetrics, Validation
from model.training.learner import Learner, StepResult
from model.training.pace import Pace
from model.training.signals import StopRequest
from pipeline.clips import Sample, checksum_of
from pipeline.errors import TrainingError
from pipeline.reports import Progress, no_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When things happen, in steps; 0 is never. Validation, pictures and saving also happen at the end.

    Attributes:
        steps: of the whole run.
        stop_at: leave after this step as if interrupted; None goes on to the end.
        max_skipped: steps in a row without a finite loss and gradient that end the run.
    """

    steps: int
    accumulate: int = 1
    log_every: int = 50
    validate_every: int = 0
    checkpoint_every: int = 0
    sample_every: int = 0
    stop_at: int | None = None
    max_skipped: int = 10

    @property
    def last(self) -> int:
        """The step after which to leave."""
        return self.steps if self.stop_at is None else min(self.steps, self.stop_at)

    def due(self, step: int, every: int) -> bool:
        """Whether something done every so many steps is done after `step` of them."""
        return every > 0 and (step % every == 0 or step == self.steps)


class Fit(NamedTuple):
    """How a call of `fit` ended: steps done, loss of the last of them (None if none was done), whether cut short."""

    step: int
    loss: float | None
    interrupted: bool


class Trainer:
    """Runs a learner over batches.

    Args:
        learner: does the steps and holds the state.
        schedule: when to do what.
        validate: judges a network; every process calls it, with the same result. None: there is nothing to judge by.
        save: writes a checkpoint of the learner, in the main process; called in every process, which gives its part.
        listeners: told what happens.
        progress: told of every step.
        before_step: called before each step, with the steps done; what it takes does not count as theirs.
        seen: what was learnt from in that many steps.
    """

    def __init__(
        self,
        learner: Learner,
        schedule: Schedule,
        *,
        save: Callable[[Milestone], None],
        validate: Callable[[nn.Module], Validation] | None = None,
        listeners: Sequence[Listener] = (),
        progress: Progress = no_progress,
        before_step: Callable[[int], None] | None = None,
        seen: Callable[[int], Seen] = lambda steps: Seen(steps, math.nan),
    ) -> None:
        self.learner = learner
        self.schedule = schedule
        self.save = save
        self.validate = validate
        self.listeners = listeners if learner.place.is_main else ()
        self.progress = progress if learner.place.is_main else no_progress
        self.before_step = before_step
        self.seen = seen
        self.best: Best | None = None
        self.skipped = 0
        self._in_a_row = 0
        self._saved_best: Best | None = None

    def go_on_from(self, best: Best | None, skipped: int, skipped_in_a_row: int) -> None:
        """Take up what a `Milestone` told, before `fit`."""
        self.best = self._saved_best = best
        self.skipped, self._in_a_row = skipped, skipped_in_a_row

    def fit(self, batches: Iterator[Sample], stop: StopRequest, *, start: int = 0) -> Fit:
        """Do the steps from `start` on, until the schedule, a signal or a failure ends them.

        Args:
            batches: uint8 batches on any device, `schedule.accumulate` for each step, beginning with step `start`.
            stop: asked in every step.

        Raises:
            TrainingError: too many steps in a row without a finite loss and gradient, or out of memory.
        """
        schedule, step, result = self.schedule, start, None
        pace = Pace()
        while step < schedule.steps:
            if self.before_step:
                with pace.paused():
                    self.before_step(step)
            with pace.waiting():
                clips = [_next(batches, step) for _ in range(schedule.accumulate)]
            result = self._step(step, clips, stop)
            step += 1
            pace.done()
            self.progress(step, schedule.steps, f"loss {result.loss:.4f}")
            if schedule.due(step, schedule.log_every):
                self._log(step, result, pace, clips)
            with pace.paused("validation"):
                is_best = self._look(step)
            ending = step == schedule.steps or self._is_asked(step, result, stop)
            if is_best or ending or schedule.due(step, schedule.checkpoint_every):
                counts = self.skipped, self._in_a_row
                with pace.paused("saving"):
                    self._save(Milestone(step, result.loss, self.best, is_best, *counts), final=ending)
            if ending and step < schedule.steps:
                logger.warning("stopped after step %d of %d; go on with --resume", step, schedule.steps)
                return Fit(step, result.loss, True)
        return Fit(step, result.loss if result else None, False)

    def _is_asked(self, step: int, result: StepResult, stop: StopRequest) -> bool:
        """Whether to leave now; several processes have agreed on it within the step."""
        alone = self.learner.place.world == 1
        return result.stop or (alone and stop.requested) or step == self.schedule.stop_at

    def _step(self, step: int, clips: Sequence[Sample], stop: StopRequest) -> StepResult:
        try:
            result = self.learner.step(step, clips, lambda: stop.requested)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory on {self.learner.place.device} in step {step + 1}: {str(error).splitlines()[0]}",
                "lower clip.crop or clip.num_frames, or batch_size (with optim.accumulate raised to match), "
                "or use parallel.precision=bf16, or give a budget of saved activations, network.memory_gb=… "
                "(spk inspect CONFIG shows how many gigabytes there are)",
            ) from error
        self.skipped += not result.applied
        self._in_a_row = 0 if result.applied or result.overflow else self._in_a_row + 1
        if not result.applied and not result.overflow:
            logger.warning("step %d left out: loss %s, grad norm %s", step + 1, result.loss, result.grad_norm)
        if self._in_a_row >= self.schedule.max_skipped:
            self._fail(step, clips)
        return result

    def _fail(self, step: int, clips: Sequence[Sample]) -> None:
        for listener in self.listeners:
            listener.on_failure(step, clips)
        raise TrainingError(
            f"{self._in_a_row} steps in a row, up to step {step + 1}, gave no finite loss and gradient",
            "lower optim.lr or optim.clip_norm, or use parallel.precision=fp32, and resume from the last checkpoint",
        )

    def _log(self, step: int, result: StepResult, pace: Pace, clips: Sequence[Sample]) -> None:
        steps_per_s, data_share = pace.lap()
        metrics = StepMetrics(
            step=step,
            steps=self.schedule.steps,
            loss=result.loss,
            charbonnier=result.charbonnier,
            perceptual=result.perceptual,
            lr=result.lr,
            grad_norm=result.grad_norm,
            skipped=self.skipped,
            steps_per_s=steps_per_s,
            data_share=data_share,
            memory_bytes=self.learner.place.peak_memory_bytes(),
            eta_s=(self.schedule.steps - step) / steps_per_s,
            samples_per_s=steps_per_s * (self.seen(step).clips - self.seen(step - 1).clips),
            epoch=self.seen(step).epochs,
            validation_share=pace.pause_share("validation"),
            saving_share=pace.pause_share("saving"),
            clips=checksum_of(clips),
        )
        for listener in self.listeners:
            listener.on_step(metrics)

    def _look(self, step: int) -> bool:
        """Validate and make pictures when it is time; whether this is the best network so far."""
        is_best, schedule = False, self.schedule
        validating = self.validate is not None and schedule.due(step, schedule.validate_every)
        showing = schedule.due(step, schedule.sample_every)
        if not (validating or showing):
            return False
        network = self.learner.best_network
        if validating:
            validation = self.validate(network)
            is_best = self.best is None or validation.psnr > self.best.val_psnr
            if is_best:
                self.best = Best(step, validation.psnr)
            for listener in self.listeners:
                listener.on_validation(step, validation, is_best)
        if showing:
            for listener in self.listeners:
                listener.on_pictures(step, network)
        return is_best

    def _save(self, milestone: Milestone, *, final: bool) -> None:
        place, error = self.learner.place, self._write(milestone)
        if not place.sum(torch.tensor([float(error is not None)], device=place.device)).item():
            self._saved_best = self.best
            return
        self.best = self._saved_best  # one that is not on disk is none: the next that beats the saved one is
        if error and final:
            raise TrainingError(
                f"the checkpoint of step {milestone.step} cannot be written: {error}",
                "make space on that disk, and go on from the checkpoint before it with --resume",
            ) from error
        if error:
            logger.error(
                "the checkpoint of step %d CANNOT BE WRITTEN: %s; training goes on", milestone.step, error
            )

    def _write(self, milestone: Milestone) -> OSError | None:
        """Write a checkpoint; what kept it from the disk, if anything did: all that was there before still is."""
        try:
            for listener in self.listeners:
                listener.on_checkpoint(milestone.step)
            self.save(milestone)
        except OSError as error:
            return error
        for listener in self.listeners:
            listener.on_saved(milestone.step, milestone.is_best)
        return None


def _next(batches: Iterator[Sample], step: int) -> Sample:
    try:
        return next(batches)
    except StopIteration:
        raise TrainingError(f"no more clips at step {step + 1}") from None
