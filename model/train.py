"""The verb `train`: a store and a config to a run folder."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import CheckpointInfo
from model.checkpoint_file import load_tensors
from model.cost import Recomputation, clip_size, plan_recomputation
from model.losses import CombinedLoss
from model.network import build_network
from model.normalize import VoxelNormalizer
from model.parallel import Parallel, parallel
from model.pretrained import Initialised, check_import, initialise
from model.training.config import TrainConfig
from model.training.diagnosis import require_finite
from model.training.events import Best, Listener, Milestone
from model.training.learner import Learner
from model.training.post_mortem import PostMortem
from model.training.provenance import checkpoint_header, identity_of, run_facts, session_facts
from model.training.run_folder import RunFolder, require_same
from model.training.runlog import LogLines, MetricsFile, TensorBoardLog, errors_only, log_file
from model.training.samples import SamplePictures
from model.training.signals import StopRequest
from model.training.skipped import SkippedSteps
from model.training.step_clips import StepClips
from model.training.trainer import Schedule, Trainer
from model.training.validation import Validator
from pipeline.clips import ClipSource, Sample, batches
from pipeline.config import to_plain
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
    """

    run: Path
    step: int
    loss: float | None
    val_psnr: float | None
    checkpoint: Path
    interrupted: bool

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return {
            "run": str(self.run),
            "step": self.step,
            "loss": self.loss,
            "val_psnr": self.val_psnr,
            "checkpoint": str(self.checkpoint),
        }


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    stop: StopRequest | None = None,
    progress: Progress = no_progress,
) -> TrainReport:
    """Train a network, in this process or as one of those that torchrun started.

    Args:
        run: the folder to write; new or empty unless `resume`.
        resume: go on from its last good checkpoint.
        stop_at: leave after this step as if interrupted.
        stop: requests to stop, from whoever has listened for them since earlier; without it, this does.
        progress: told of every step.

    Raises:
        UsageError: the folder and `resume` do not fit, or a run is resumed with other settings.
        StoreError: the store is missing, damaged or lacks what is needed.
        CheckpointError: nothing whole to resume from, or unusable initial or VGG weights.
        TrainingError: no clips, no finite losses, or out of memory.
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(parallel(config.parallel))
        stop = stop or stack.enter_context(StopRequest())
        folder = RunFolder(run, config.keep_checkpoints)
        goes_on = resume and folder.is_run
        if goes_on and place.is_main:
            stack.enter_context(
                log_file(run / "log.txt")
            )  # early, to keep what is said about damaged checkpoints
        start = folder.find_start(resume=resume)
        store = open_store(config.store)
        config = replace(config, voxels=store.voxel_name(config.voxels))
        source = ClipSource(store, "train", config.voxels, config.clip)
        normalization = store.normalization(config.voxels)
        identity = identity_of(config, store, source, place)
        first = start.step if start else 0
        if start:
            require_same(run, start.header["identity"], identity)
        clip = clip_size(config, source.num_bins, source.scale)
        recomputation = plan_recomputation(config.network, clip, place)
        learner, parent = _learner(config, source, normalization, place, start, recomputation)
        place.barrier()  # all that can be wrong was checked, by everyone: the main process may begin to write
        if place.is_main:
            folder.write_config(dump_yaml(to_plain(config)))
            folder.write_session(run_facts(config, store, learner.network), session_facts(place, first))
            if not goes_on:
                stack.enter_context(log_file(run / "log.txt"))
            _announce(config, learner, source, parent, recomputation)
        else:
            stack.enter_context(errors_only())
        clips = _step_clips(config, source, place)
        trainer = Trainer(
            learner,
            _schedule(config, stop_at),
            save=_saver(folder, learner, checkpoint_header(config, store, source, normalization, identity)),
            validate=_validator(config, store, source, learner),
            listeners=_listeners(stack, config, run, clips, learner, first) if place.is_main else (),
            post_mortem=PostMortem(run, config, learner, clips),
            progress=progress,
        )
        if start:
            trainer.take_up(_milestone(start))
        logger.info("training %s from step %d to %d on %s", run, first, config.steps, place.device)
        fit = trainer.fit(_clips(stack, config, source, place, first), stop, start=first)
    return TrainReport(
        run=run,
        step=fit.step,
        loss=fit.loss if fit.loss is not None or start is None else start.header["loss"],
        val_psnr=trainer.best.val_psnr if trainer.best else None,
        checkpoint=folder.checkpoints.best if trainer.best else folder.checkpoints.last,
        interrupted=fit.interrupted,
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


def _clips(
    stack: contextlib.ExitStack, config: TrainConfig, source: ClipSource, place: Parallel, first: int
) -> Iterator[Sample]:
    clips = batches(
        source,
        seed=config.seed,
        start_step=first,
        batch_size=config.batch_size,
        rank=place.rank,
        world=place.world,
        workers=config.workers,
        accumulate=config.optim.accumulate,
    )
    stack.callback(clips.close)  # type: ignore[attr-defined] - a generator, whose threads end with it
    return clips


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


def _validator(config: TrainConfig, store: Store, source: ClipSource, learner: Learner) -> Validator | None:
    if not config.validate_every:
        return None
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
    if not validator.windows:
        logger.warning(
            "%s has no split 'val' with sharp frames: no validation, and no best checkpoint", store.place
        )
        return None
    return validator


def _listeners(
    stack: contextlib.ExitStack,
    config: TrainConfig,
    run: Path,
    clips: StepClips,
    learner: Learner,
    first: int,
) -> list[Listener]:
    metrics = stack.enter_context(contextlib.closing(MetricsFile(run / "metrics.jsonl", first)))
    board = stack.enter_context(contextlib.closing(TensorBoardLog(run / "tensorboard", first)))
    skipped = SkippedSteps(clips, metrics.write)
    listeners: list[Listener] = [LogLines(config.workers), metrics, board, skipped]
    if config.sample_every:
        clip = clips.source.batch(range(1), config.seed)
        listeners.append(SamplePictures(run / "samples", clip, learner.restore, board.show))
    return listeners


def _saver(folder: RunFolder, learner: Learner, header: Mapping[str, Any]) -> Callable[[Milestone], None]:
    def save(milestone: Milestone) -> None:
        tensors = learner.tensors()
        require_finite(tensors, milestone.step)
        loss = milestone.loss
        changing = {
            "step": milestone.step,
            "loss": loss if loss is not None and math.isfinite(loss) else None,
            "best": milestone.best._asdict() if milestone.best else None,
            "skipped": milestone.skipped,
            "look_due": milestone.look_due,
            "learner": learner.plain(),
        }
        folder.checkpoints.save(tensors, {**header, **changing}, best=milestone.is_best)

    return save


def _milestone(start: CheckpointInfo) -> Milestone:
    """What a checkpoint was made of; older ones do not say whether steps were left out."""
    header, best = start.header, Best(**start.best) if start.best else None
    skipped, look_due = header.get("skipped", 0), header.get("look_due", False)
    return Milestone(start.step, header["loss"], best, is_best=False, skipped=skipped, look_due=look_due)


def _step_clips(config: TrainConfig, source: ClipSource, place: Parallel) -> StepClips:
    return StepClips(
        source,
        seed=config.seed,
        batch_size=config.batch_size,
        accumulate=config.optim.accumulate,
        world=place.world,
    )


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
        *([str(recomputation)] if recomputation else []),
    ]:
        logger.info("%s", line)
    if config.optim.warmup_steps >= config.steps:
        logger.warning(
            "optim.warmup_steps=%d is no less than steps=%d: the learning rate never reaches optim.lr",
            *(config.optim.warmup_steps, config.steps),
        )
