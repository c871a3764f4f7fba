"""What a training run would do, without doing it: `spk train --dry-run`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.cost import clip_size, plan_recomputation
from model.lora import adapt, trainable
from model.losses import CombinedLoss
from model.network import build_network
from model.parallel import Parallel, parallel
from model.pretrained import initialise
from model.training.config import TrainConfig
from model.training.optim import Pace, paces_of, parameter_groups
from model.training.phases import Phase, phases_of, sources_of
from model.training.provenance import identity_of, identity_then
from model.training.run_folder import RunFolder, require_same
from model.training.schedules import TurningPoint, turning_points
from pipeline.clips import ClipSource
from pipeline.store import open_store

_ADAM_COPIES = 2
"""Moments that the optimizer keeps of every parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """A run that could begin.

    Attributes:
        run: the folder that would be written.
        step, steps: where it would begin and end.
        clips: clips to learn from.
        parameters: of the network.
        trainable: those of them that would learn.
        checkpoint_bytes: about how large each checkpoint would be.
        checkpoint_stages: stages whose activations would be recomputed.
        learning_rate: turning points of its schedule.
        paces: how the parts of the network follow it.
        phases: sizes of the batches.
    """

    run: Path
    step: int
    steps: int
    clips: int
    parameters: int
    trainable: int
    checkpoint_bytes: int
    checkpoint_stages: tuple[int, ...]
    learning_rate: tuple[TurningPoint, ...]
    paces: tuple[Pace, ...]
    phases: tuple[Phase, ...]


def plan_training(config: TrainConfig, run: Path, *, resume: bool = False) -> DryRun:
    """Check what `train` would check of folder, store and settings before its first step, and write nothing.

    Raises:
        UsageError, StoreError, CheckpointError, TrainingError: as `train`.
    """
    start = RunFolder(run, config.keep_checkpoints).find_start(resume=resume)
    store = open_store(config.store)
    config = replace(config, voxels=store.voxel_name(config.voxels))
    phases = phases_of(config)
    source = sources_of(phases, store, config.voxels or "")[0]
    store.normalization(config.voxels or "")
    if start:
        place = Parallel(device=torch.device("cpu"), world=int(os.environ.get("WORLD_SIZE", "1")))
        then = identity_then(start.header["identity"], config)
        require_same(run, then, identity_of(config, store, source, place))
    CombinedLoss(config.loss)  # finds its VGG weights, or says what to do
    weighted = config.init is not None and start is None
    with torch.device("cpu" if weighted else "meta"):
        network = build_network(config.network, source.num_bins)
    if weighted:
        initialise(network, config.init)
    adapt(network, config.lora)
    size = trainable(network)
    copies = _ADAM_COPIES + bool(config.optim.ema_decay)
    return DryRun(
        run=run,
        step=start.step if start else 0,
        steps=config.steps,
        clips=len(source),
        parameters=size.total,
        trainable=size.parameters,
        checkpoint_bytes=4 * (size.total + copies * size.parameters),
        checkpoint_stages=_recomputed(config, source),
        learning_rate=tuple(turning_points(config.optim, config.steps)),
        paces=paces_of(parameter_groups(network, config.optim)),
        phases=phases,
    )


def _recomputed(config: TrainConfig, source: ClipSource) -> tuple[int, ...]:
    with parallel(config.parallel) as place:
        clip = clip_size(config, source.num_bins, source.scale)
        recomputation = plan_recomputation(config.network, clip, place)
    return recomputation.stages if recomputation else config.network.checkpoint_stages
