"""The verb `train`: a store and a config to a run folder."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model.parallel import parallel
from model.repeatable import repeatable
from model.training.agreement import agreed
from model.training.config import TrainConfig
from model.training.events import Listener
from model.training.feed import feed
from model.training.layer_watch import LayerWatch
from model.training.phases import phase_batches, seen_after
from model.training.post_mortem import PostMortem
from model.training.preparation import Prepared, prepare
from model.training.profiling import ProfileReport, StepProfiler
from model.training.provenance import run_facts, session_facts
from model.training.records import listeners_of, saver
from model.training.run_folder import RunFolder
from model.training.runlog import errors_only, log_file
from model.training.session import Session, recorded
from model.training.signals import StopRequest
from model.training.step_clips import StepClips
from model.training.trainer import Schedule, Trainer
from model.training.validation import Validator
from pipeline.config import to_plain
from pipeline.reader_times import ReaderTimes
from pipeline.reports import Progress, no_progress
from pipeline.yaml_files import dump_yaml

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """How a run stands.

    Attributes:
        step: steps done.
        loss: of the last step.
        val_psnr: in dB, of `checkpoint`; None without validation.
        checkpoint: the best one; without validation the last one.
        interrupted: whether a signal ended it before its last step.
        profile: where the time of its steps went, where that was asked for and there were enough of them.
    """

    run: Path
    step: int
    loss: float | None
    val_psnr: float | None
    checkpoint: Path
    interrupted: bool
    profile: ProfileReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return {
            "run": str(self.run),
            "step": self.step,
            "loss": self.loss,
            "val_psnr": self.val_psnr,
            "checkpoint": str(self.checkpoint),
            **({"profile": self.profile.to_json()} if self.profile else {}),
        }


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    profile: bool = False,
    stop: StopRequest | None = None,
    progress: Progress = no_progress,
    listeners: Sequence[Listener] = (),
) -> TrainReport:
    """Train a network, in this process or as one of those that torchrun started.

    Args:
        run: the folder to write; new or empty unless `resume`.
        resume: go on from its last good checkpoint.
        stop_at: leave after this step as if interrupted.
        profile: look at where the time of some steps goes, and write that to RUN/profile.
        stop: requests to stop, from whoever has listened for them since earlier; without it, this does.
        progress: told of every step.
        listeners: told what happens, in the main process.

    Raises:
        UsageError: the folder and `resume` do not fit, or a run is resumed with other settings.
        StoreError: the store is missing, damaged or lacks what is needed.
        CheckpointError: nothing whole to resume from, or unusable initial or VGG weights.
        TrainingError: no clips, no finite losses, or out of memory.
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(parallel(config.parallel))
        stack.enter_context(repeatable(config.parallel.deterministic))
        stop = stop or stack.enter_context(StopRequest())
        folder = RunFolder(run, config.keep_checkpoints, config.keep_every)
        with agreed(place):
            if place.is_main:
                folder.check(resume=resume)  # before a lock leaves its file there
                stack.enter_context(folder.lock())
        logs = log_file(run / "log.txt") if place.is_main else errors_only()
        goes_on = resume and folder.is_run
        if goes_on:
            stack.enter_context(logs)  # early, to keep what is said about damaged checkpoints
        prepared = prepare(config, folder, place, resume=resume, stop_at=stop_at)
        config, learner, first = prepared.config, prepared.learner, prepared.first
        if not goes_on:
            stack.enter_context(logs)
        session = Session(first)
        if place.is_main:
            folder.tidy(prepared.start, prepared.best)
            facts = run_facts(config, prepared.store, learner.network), session_facts(place, first)
            session = stack.enter_context(recorded(folder, dump_yaml(to_plain(config)), *facts))
            prepared.announce()
        # In every process: where parameters are sharded, a norm takes all of them.
        learner.watch = LayerWatch(learner.network, learner.optimizer, config.histogram_every)
        accumulate, times = config.optim.accumulate, ReaderTimes()
        how = {"seed": config.seed, "accumulate": accumulate}
        clips = StepClips(prepared.phases, prepared.sources, world=place.world, **how)
        validator = _validator(prepared)
        if place.is_main:
            listeners = [*listeners_of(stack, prepared, folder, validator, clips, times), *listeners]
        schedule = _schedule(config, stop_at)
        profiler = (
            stack.enter_context(StepProfiler(learner, run / "profile", schedule.last - first))
            if profile and place.is_main
            else None
        )
        trainer = Trainer(
            learner,
            schedule,
            save=saver(prepared, folder),
            validate=validator if config.validate_every and validator.windows else None,
            listeners=listeners,
            post_mortem=PostMortem(run, config, learner, clips),
            progress=_both(progress, session),
            before_step=profiler.before_step if profiler else None,
            seen=partial(seen_after, prepared.phases, prepared.sources, accumulate * place.world),
        )
        if prepared.start:
            trainer.take_up(prepared.milestone)
        logger.info("training %s from step %d to %d on %s", run, first, config.steps, place.device)
        reading = {"start_step": first, "workers": config.workers, "times": times}
        read = partial(phase_batches, prepared.phases, prepared.sources, place, **how, **reading)
        with contextlib.closing(feed(place.device, read)) as batches:  # its threads end with it
            fit = trainer.fit(profiler.watch(batches) if profiler else batches, stop, start=first)
        session.interrupted = fit.interrupted
    return TrainReport(
        run=run,
        step=fit.step,
        loss=fit.loss if fit.loss is not None else prepared.milestone.loss,
        val_psnr=trainer.best.val_psnr if trainer.best else None,
        checkpoint=folder.checkpoints.best if trainer.best else folder.checkpoints.last,
        interrupted=fit.interrupted,
        profile=profiler.report if profiler else None,
    )


def _both(progress: Progress, session: Session) -> Progress:
    """Progress that the session keeps up with as well."""

    def report(done: int, total: int, what: str) -> None:
        session.step = done
        progress(done, total, what)

    return report


def _schedule(config: TrainConfig, stop_at: int | None) -> Schedule:
    return Schedule(
        steps=config.steps,
        accumulate=config.optim.accumulate,
        log_every=config.log_every,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        sample_every=config.sample_every,
        stop_at=stop_at,
        max_skipped=config.max_skipped,
    )


def _validator(prepared: Prepared) -> Validator:
    config, store, learner = prepared.config, prepared.store, prepared.learner
    validator = Validator(
        store.sequences("val"),
        config.voxels or "",
        num_frames=config.clip.num_frames,
        crop=config.validate_crop,
        max_clips=config.validate_clips,
        scale=prepared.sources[0].scale,
        restore=learner.restore,
        place=learner.place,
    )
    if config.validate_every and not validator.windows:
        logger.warning(
            "%s has no split 'val' with sharp frames: no validation, and no best checkpoint", store.place
        )
    return validator
