"""The training loop: which step comes next, and when to look, to save and to stop."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from model.training.events import Best, Listener, Milestone, Seen, StepMetrics, Validation
from model.training.guarded import Guarded
from model.training.learner import Learner, StepResult
from model.training.memory import ADVICE, Shortage, attempt
from model.training.pace import Pace
from model.training.post_mortem import PostMortem
from model.training.signals import StopRequest
from pipeline.clips import Sample, checksum_of
from pipeline.errors import SpkError, TrainingError
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
        validate: judges a network, and gives up when the function it is given says that it is asked to stop; every
            process calls it, with the same result. None: there is nothing to judge by.
        save: writes a checkpoint of the learner, in the main process; called in every process, which gives its part.
        listeners: told what happens; one that cannot write ends nothing.
        post_mortem: explains what ends the run, as far as it can be found out.
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
        validate: Callable[[nn.Module, Callable[[], bool]], Validation | None] | None = None,
        listeners: Sequence[Listener] = (),
        post_mortem: PostMortem | None = None,
        progress: Progress = no_progress,
        before_step: Callable[[int], None] | None = None,
        seen: Callable[[int], Seen] = lambda steps: Seen(steps, math.nan),
    ) -> None:
        self.learner = learner
        self.schedule = schedule
        self.save = save
        self.validate = validate
        self.listeners = [Guarded(listener) for listener in listeners] if learner.place.is_main else []
        self.post_mortem = post_mortem
        self.progress = progress if learner.place.is_main else no_progress
        self.before_step = before_step
        self.seen = seen
        self.best: Best | None = None
        self.skipped = 0
        self._in_a_row = 0
        self._loss: float | None = None
        self._look_due = False
        self._saved = 0
        self._saved_best: Best | None = None

    def take_up(self, milestone: Milestone) -> None:
        """Go on from the state that a checkpoint was made of."""
        self.best = self._saved_best = milestone.best
        self.skipped, self._in_a_row = milestone.skipped, milestone.skipped_in_a_row
        self._loss, self._look_due = milestone.loss, milestone.look_due

    def fit(self, batches: Iterator[Sample], stop: StopRequest, *, start: int = 0) -> Fit:
        """Do the steps from `start` on, until the schedule, a signal or a failure ends them.

        Args:
            batches: uint8 batches on any device, `schedule.accumulate` for each step, beginning with step `start`.
            stop: asked in every step.

        Raises:
            TrainingError: too many steps in a row without a finite loss and gradient, or out of memory.
            SpkError, OSError: the clips cannot be read.
        """
        schedule, step, result = self.schedule, start, None
        self._saved = start
        pace = Pace()
        if (step < schedule.steps or self._look_due) and self._stops_before(step, stop):
            return self._leave(step, None)
        while step < schedule.steps:
            if self.before_step:
                with pace.paused():
                    self.before_step(step)
            clips, result = self._step(step, batches, stop, pace)
            step += 1
            pace.done()
            self.progress(step, schedule.steps, f"loss {result.loss:.4f}")
            if schedule.due(step, schedule.log_every):
                self._log(step, result, pace, clips)
            with pace.paused("validation"):
                is_best = self._look(step, stop)
            ending = step == schedule.steps or self._look_due or self._is_asked(step, result, stop)
            if is_best or ending or schedule.due(step, schedule.checkpoint_every):
                with pace.paused("saving"):
                    self._save(self._milestone(step, is_best), final=ending)
            if ending and (step < schedule.steps or self._look_due):
                return self._leave(step, result.loss)
        return Fit(step, result.loss if result else None, False)

    def _stops_before(self, step: int, stop: StopRequest) -> bool:
        """Whether there is a request to stop before the first step; if not, do what an earlier one put off."""
        if self.learner.place.any(stop.requested):
            if not step:
                self._save(self._milestone(step), final=True)
            return True
        if self._look_due and self._look(step, stop):
            self._save(self._milestone(step, is_best=True), final=True)
        return self._look_due

    def _leave(self, step: int, loss: float | None) -> Fit:
        logger.warning("stopped after step %d of %d; go on with --resume", step, self.schedule.steps)
        return Fit(step, loss, True)

    def _milestone(self, step: int, is_best: bool = False) -> Milestone:
        counts = self.skipped, self._in_a_row
        return Milestone(step, self._loss, self.best, is_best, *counts, look_due=self._look_due)

    def _is_asked(self, step: int, result: StepResult, stop: StopRequest) -> bool:
        """Whether to leave now; several processes have agreed on it within the step."""
        alone = self.learner.place.world == 1
        return result.stop or (alone and stop.requested) or step == self.schedule.stop_at

    def _step(
        self, step: int, batches: Iterator[Sample], stop: StopRequest, pace: Pace
    ) -> tuple[list[Sample], StepResult]:
        """Do one step: its clips, and what it did."""
        try:
            with pace.waiting():
                clips, shortage = attempt(lambda: self._clips(batches, step), self.learner.place)
        except (SpkError, OSError):
            self._rescue(step)
            raise
        if clips:
            result, shortage = attempt(
                lambda: self.learner.step(step, clips, lambda: stop.requested), self.learner.place
            )
        if shortage:
            self._rescue(step)
            self._out_of_memory(step, shortage)
        assert clips and result
        self._loss = result.loss
        self.skipped += not result.applied
        self._in_a_row = 0 if result.applied or result.overflow else self._in_a_row + 1
        if self._in_a_row:
            for listener in self.listeners:
                listener.on_skipped(step, result.loss, result.grad_norm)
        if self._in_a_row >= self.schedule.max_skipped:
            self._fail(step, clips)
        return clips, result

    def _clips(self, batches: Iterator[Sample], step: int) -> list[Sample]:
        return [_next(batches, step) for _ in range(self.schedule.accumulate)]

    def _fail(self, step: int, clips: Sequence[Sample]) -> None:
        """End the run after too many steps that were left out; every process comes here in the same step."""
        findings = self.post_mortem.of_step(step, clips) if self.post_mortem else ""
        self._look_due = True  # the run ends before it is this step's turn
        self._rescue(step + 1, together=True)
        raise TrainingError(
            f"{self._in_a_row} steps in a row, up to step {step + 1}, gave no finite loss and gradient{findings}",
            "resume with parallel.precision=fp32, or begin a new run with a lower optim.lr or optim.clip_norm "
            "and init=CHECKPOINT",
        )

    def _out_of_memory(self, step: int, shortage: Shortage) -> None:
        problem = f"out of memory on {self.learner.place.device} in step {step + 1}: {shortage.problem}"
        if not self.post_mortem:
            raise TrainingError(problem, ADVICE)
        report = self.post_mortem.of_memory(shortage)
        raise TrainingError("\n".join([problem, *report.lines()]), report.advice())

    def _rescue(self, step: int, *, together: bool = False) -> None:
        """Keep what was learned since the last checkpoint, before an error ends the run.

        Args:
            together: whether all processes are here; if not, the others are within a step, and there is no state
                of all of them to save.
        """
        if step > self._saved and self.learner.is_whole and (together or self.learner.place.world == 1):
            logger.warning("step %d is the last good one; saving it", step)
            self._save(self._milestone(step), final=False)

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

    def _look(self, step: int, stop: StopRequest) -> bool:
        """Validate and make pictures when it is time; whether this is the best network so far.

        A request to stop puts off what is not done yet until the run is resumed.
        """
        due = self.schedule.due
        validating = self.validate is not None and due(step, self.schedule.validate_every)
        showing = due(step, self.schedule.sample_every)
        if not (validating or showing):
            self._look_due = False
            return False
        before, self._look_due = self.best, True  # until it is done
        is_best, shortage = attempt(
            lambda: self._look_now(step, stop, validating=validating, showing=showing), self.learner.place
        )
        if shortage:
            self.best = before
            self._rescue(step)
            raise TrainingError(
                f"out of memory on {self.learner.place.device} in validation after step {step}: {shortage.problem}",
                "resume with a lower validate_crop",
            )
        return bool(is_best)

    def _look_now(self, step: int, stop: StopRequest, *, validating: bool, showing: bool) -> bool:
        network, is_best = self.learner.best_network, False
        if self.validate and validating:
            validation = self.validate(network, lambda: stop.requested)
            if validation is None:
                return False
            is_best = self.best is None or validation.psnr > self.best.val_psnr
            if is_best:
                self.best = Best(step, validation.psnr)
            for listener in self.listeners:
                listener.on_validation(step, validation, is_best)
        if showing:
            for listener in self.listeners:
                listener.on_pictures(step, network)
        self._look_due = False
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
            self._saved = milestone.step
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
