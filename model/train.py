"""The verb `train`: a store and a config to a run folder."""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import CheckpointInfo
from model.checkpoint_file import load_tensors
from model.cost import Recomputation, clip_size, plan_recomputation
from model.lora import adapt, trainable
from model.losses import CombinedLoss
from model.network import build_network
from model.normalize import VoxelNormalizer
from model.parallel import Parallel, parallel
from model.pretrained import Initialised, check_import, initialise
from model.repeatable import repeatable
from model.training.agreement import agreed, run_in_common
from model.training.config import TrainConfig
from model.training.events import Best, Listener, Milestone
from model.training.feed import feed
from model.training.hints import Hints, reading_of
from model.training.layer_watch import LayerWatch
from model.training.learner import Learner
from model.training.metrics_file import MetricsFile
from model.training.optim import learning_rates, paces_of
from model.training.phases import phase_batches, phases_of, seen_after, sources_of
from model.training.profiling import ProfileReport, StepProfiler
from model.training.progress_picture import ProgressPicture
from model.training.provenance import (
    checkpoint_header,
    generator_digest,
    identity_of,
    numerics,
    run_facts,
    session_facts,
    warn_of_other_numerics,
)
from model.training.run_folder import RunFolder, require_same
from model.training.runlog import FailedBatches, LogLines, errors_only, log_file
from model.training.samples import SamplePictures, examples
from model.training.schedules import in_words
from model.training.session import Session, recorded
from model.training.signals import StopRequest
from model.training.tensorboard_log import TensorBoardLog
from model.training.tolerant import Tolerant, tolerant_threads
from model.training.trainer import Schedule, Trainer
from model.training.validation import Validator
from pipeline.clips import ClipSource
from pipeline.config import to_plain
from pipeline.reader_times import ReaderTimes
from pipeline.reports import Progress, no_progress
from pipeline.stats import Normalization
from pipeline.store import Store, open_store
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
    progress: Progress = no_progress,
    listeners: Sequence[Listener] = (),
) -> TrainReport:
    """Train a network, in this process or as one of those that torchrun started.

    Args:
        run: the folder to write; new or empty unless `resume`.
        resume: go on from its last good checkpoint.
        stop_at: leave after this step as if interrupted.
        profile: look at where the time of some steps goes, and write that to RUN/profile.
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
        stop = stack.enter_context(StopRequest())
        folder = RunFolder(run, config.keep_checkpoints, config.keep_every)
        goes_on = resume and folder.is_run
        with agreed(place) as facts:  # when all processes have left it, the main one may begin to write
            if place.is_main:
                stack.enter_context(folder.lock())
                if goes_on:  # early, to keep what is said about damaged checkpoints
                    stack.enter_context(log_file(run / "log.txt"))
            start = folder.find_start(resume=resume)
            store = open_store(config.store)
            config = replace(config, voxels=store.voxel_name(config.voxels))
            phases = phases_of(config)
            sources = sources_of(phases, store, config.voxels)
            source = sources[0]
            normalization = store.normalization(config.voxels)
            identity = identity_of(config, store, source, place)
            first = start.step if start else 0
            if start:
                require_same(run, start.header["identity"], identity)
                warn_of_other_numerics(run, start.header.get("numerics", {}), numerics(place))
            best = folder.checkpoints.find_best(start) if start else None
            clip = clip_size(config, source.num_bins, source.scale)
            recomputation = plan_recomputation(config.network, clip, place)
            learner, parent = _learner(config, source, normalization, place, start, recomputation)
            if place.world > 1:
                facts |= run_in_common(config, store, start, stop_at)
        if place.is_main:
            folder.tidy(start, best)
            if not goes_on:
                stack.enter_context(log_file(run / "log.txt"))
            facts = run_facts(config, store, learner.network), session_facts(place, first)
            session = stack.enter_context(recorded(folder, dump_yaml(to_plain(config)), *facts))
            _announce(config, learner, source, parent, recomputation)
        else:
            session = Session(first)
            stack.enter_context(errors_only())
        validator = _validator(config, store, source, learner)
        times = ReaderTimes()
        # Every process: where parameters are sharded, a norm takes all of them.
        learner.watch = LayerWatch(learner.network, learner.optimizer, config.histogram_every)
        if place.is_main:
            ours = _listeners(stack, config, run, store, source, validator, learner, first, times)
            listeners = [*ours, *listeners]
        schedule = _schedule(config, stop_at)
        profiler = (
            stack.enter_context(StepProfiler(learner, run / "profile", schedule.last - first))
            if profile and place.is_main
            else None
        )
        trainer = Trainer(
            learner,
            schedule,
            save=_saver(
                folder,
                learner,
                checkpoint_header(config, store, source, normalization, identity, learner.network, place),
            ),
            validate=validator if config.validate_every and validator.windows else None,
            listeners=listeners,
            progress=_both(progress, session),
            before_step=profiler.before_step if profiler else None,
            seen=partial(seen_after, phases, sources, config.optim.accumulate * place.world),
        )
        if start:
            skipped = (start.header.get(name, 0) for name in ("skipped", "skipped_in_a_row"))
            trainer.go_on_from(Best(**best.best) if best else None, *skipped)
        logger.info("training %s from step %d to %d on %s", run, first, config.steps, place.device)
        read = partial(
            phase_batches,
            phases,
            sources,
            place,
            seed=config.seed,
            start_step=first,
            accumulate=config.optim.accumulate,
            workers=config.workers,
            times=times,
        )
        with contextlib.closing(feed(place.device, read)) as clips:  # its threads end with it
            fit = trainer.fit(profiler.watch(clips) if profiler else clips, stop, start=first)
        session.interrupted = fit.interrupted
    return TrainReport(
        run=run,
        step=fit.step,
        loss=fit.loss if fit.loss is not None or start is None else start.header["loss"],
        val_psnr=trainer.best.val_psnr if trainer.best else None,
        checkpoint=folder.checkpoints.best if trainer.best else folder.checkpoints.last,
        interrupted=fit.interrupted,
        profile=profiler.report if profiler else None,
    )


def _learner(
    config: TrainConfig,
    source: ClipSource,
    normalization: Normalization,
    place: Parallel,
    start: CheckpointInfo | None,
    recomputation: Recomputation | None,
) -> tuple[Learner, Initialised | None]:
    """The learner as it was at `start`, or fresh, and then what its network was initialised from."""
    torch.manual_seed(config.seed)
    stages = recomputation.stages if recomputation else config.network.checkpoint_stages
    network = build_network(replace(config.network, checkpoint_stages=stages), source.num_bins)
    parent = initialise(network, config.init) if config.init and not start else None
    adapt(network, config.lora)
    if parent and not parent.took_branch:
        parent = replace(parent, difference=check_import(network, config.init))
    takes_voxels = config.network.fusion != "none"
    learner = Learner(
        network.to(place.device),
        CombinedLoss(config.loss).to(place.device),
        VoxelNormalizer(normalization.table()).to(place.device) if takes_voxels else None,
        config.optim,
        place,
        steps=config.steps,
        seed=config.seed,
    )
    if start:
        learner.load(load_tensors(start.path), start.header["learner"])
    return learner, parent


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
    )


def _validator(config: TrainConfig, store: Store, source: ClipSource, learner: Learner) -> Validator:
    validator = Validator(
        store.sequences("val"),
        config.voxels or "",
        num_frames=config.clip.num_frames,
        crop=config.validate_crop,
        max_clips=config.validate_clips,
        scale=source.scale,
        restore=learner.restore,
        place=learner.place,
    )
    if config.validate_every and not validator.windows:
        logger.warning(
            "%s has no split 'val' with sharp frames: no validation, and no best checkpoint", store.place
        )
    return validator


def _listeners(
    stack: contextlib.ExitStack,
    config: TrainConfig,
    run: Path,
    store: Store,
    source: ClipSource,
    validator: Validator,
    learner: Learner,
    first: int,
    times: ReaderTimes,
) -> Sequence[Listener]:
    stack.enter_context(tolerant_threads())
    metrics = MetricsFile(run / "metrics.jsonl", first)
    text, rates = dump_yaml(to_plain(config)), partial(learning_rates, learner.optimizer)
    board = TensorBoardLog(run / "tensorboard", first, config=text, rates=rates)
    picture = ProgressPicture(run)
    learner.watch.show = board.show_layers
    step_clips = config.batch_size * config.optim.accumulate * learner.place.world
    hints = Hints(
        reading_of(store, config.voxels or "", workers=config.workers, epoch_steps=len(source) // step_clips),
        times,
        start=first,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
    )
    listeners: list[Listener] = [LogLines(), hints, metrics, board, FailedBatches(run)]
    if config.sample_every:
        clips = examples(validator, source, config.sample_clips, config.seed)
        listeners.append(SamplePictures(run / "samples", clips, learner.restore, board.show))
    tolerant = [Tolerant(listener) for listener in [*listeners, picture]]
    for listener in tolerant:
        stack.callback(listener.close)
    return tolerant


def _saver(folder: RunFolder, learner: Learner, header: Mapping[str, Any]) -> Callable[[Milestone], None]:
    def save(milestone: Milestone) -> None:
        best = milestone.best._asdict() if milestone.best else None
        changing = {
            "step": milestone.step,
            "loss": milestone.loss if math.isfinite(milestone.loss) else None,
            "best": best,
            "skipped": milestone.skipped,
            "skipped_in_a_row": milestone.skipped_in_a_row,
            "learner": learner.plain(),
            "rng": {**header["rng"], "state": generator_digest(learner.place)},
        }
        tensors = learner.tensors()
        if learner.place.is_main:
            folder.checkpoints.save(tensors, {**header, **changing}, best=milestone.is_best)

    return save


def _announce(
    config: TrainConfig,
    learner: Learner,
    source: ClipSource,
    parent: Initialised | None,
    recomputation: Recomputation | None,
) -> None:
    parameters = sum(parameter.numel() for parameter in learner.network.parameters())
    logger.info("network of %.2f M parameters, %d clips to learn from", parameters / 1e6, len(source))
    for line in [
        *(str(parent).splitlines() if parent else []),
        *([f"LoRA of rank {config.lora.rank}: {trainable(learner.network)}"] if config.lora.rank else []),
        *([str(recomputation)] if recomputation else []),
        in_words(config.optim, config.steps),
        *map(str, paces_of(learner.optimizer.param_groups)),
        *map(str, phases_of(config)),
    ]:
        logger.info("%s", line)
    if config.optim.warmup_steps >= config.steps:
        logger.warning(
            "optim.warmup_steps=%d is no less than steps=%d: the learning rate never reaches optim.lr",
            *(config.optim.warmup_steps, config.steps),
        )
    for phase in config.phases:
        if phase.start >= config.steps:
            logger.warning("the phase from step %d is never reached: steps=%d", phase.start, config.steps)
