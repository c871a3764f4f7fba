"""What is settled before the first step of a session: the store, the clips, the network, and where the run stands."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from model.checkpoint import CheckpointInfo
from model.checkpoint_file import load_tensors
from model.cost import Recomputation, clip_size, plan_recomputation
from model.lora import adapt, trainable
from model.losses import CombinedLoss
from model.network import build_network
from model.normalize import VoxelNormalizer
from model.parallel import Parallel
from model.pretrained import Initialised, check_import, initialise
from model.training.agreement import agreed, run_in_common
from model.training.config import TrainConfig
from model.training.events import Best, Milestone
from model.training.learner import Learner
from model.training.optim import paces_of
from model.training.phases import Phase, phases_of, sources_of
from model.training.provenance import (
    checkpoint_header,
    identity_of,
    identity_then,
    numerics,
    warn_of_other_numerics,
)
from model.training.run_folder import RunFolder, require_same
from model.training.schedules import in_words
from pipeline.clips import ClipSource
from pipeline.stats import Normalization
from pipeline.store import Store, open_store

logger = logging.getLogger(__name__)

_FEW_INSTANTS = 0.5
"""Of the exposure: who sees sharp frames in less of it does not learn to restore any instant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A session that could begin with its first step.

    Attributes:
        config: with the name of the voxel grids.
        phases, sources: of the whole run, and where the clips of each come from.
        normalization: of the voxel grids.
        identity: what decides the weights.
        start, best: the checkpoint to go on from, and the best one; None where there is none.
        learner: as it was at `start`.
        parent: what the network was initialised from; None if it was not, or not now.
        recomputation: that was planned; None without a budget of memory.
    """

    config: TrainConfig
    store: Store
    phases: tuple[Phase, ...]
    sources: list[ClipSource]
    normalization: Normalization
    identity: dict[str, Any]
    start: CheckpointInfo | None
    best: CheckpointInfo | None
    learner: Learner
    parent: Initialised | None
    recomputation: Recomputation | None

    @property
    def first(self) -> int:
        """Steps that are done already."""
        return self.start.step if self.start else 0

    @property
    def milestone(self) -> Milestone:
        """The state that `start` was made of; checkpoints of older versions tell less."""
        header = self.start.header if self.start else {}
        return Milestone(
            self.first,
            header.get("loss"),
            Best(**self.best.best) if self.best and self.best.best else None,
            is_best=False,
            skipped=header.get("skipped", 0),
            skipped_in_a_row=header.get("skipped_in_a_row", 0),
            look_due=header.get("look_due", False),
        )

    def header(self) -> dict[str, Any]:
        """What every checkpoint of this session says."""
        network, place = self.learner.network, self.learner.place
        return checkpoint_header(
            self.config, self.store, self.sources[0], self.normalization, self.identity, network, place
        )

    def announce(self) -> None:
        """Log what is going to be trained, and what looks like a mistake in it."""
        config = self.config
        size = trainable(self.learner.network)
        clips = len(self.sources[0])
        logger.info("network of %.2f M parameters, %d clips to learn from", size.total / 1e6, clips)
        for line in [
            *(str(self.parent).splitlines() if self.parent else []),
            *([f"LoRA of rank {config.lora.rank}: {size}"] if config.lora.rank else []),
            *([str(self.recomputation)] if self.recomputation else []),
            in_words(config.optim, config.steps),
            *map(str, paces_of(self.learner.optimizer.param_groups)),
            *map(str, self.phases),
        ]:
            logger.info("%s", line)
        for line in _doubts(config, self.sources[0].instant_range):
            logger.warning("%s", line)


def prepare(
    config: TrainConfig, folder: RunFolder, place: Parallel, *, resume: bool, stop_at: int | None = None
) -> Prepared:
    """Check all that can be wrong, in every process, and write nothing.

    Raises:
        SpkError: as `model.train.train`; in every process, if it is so in one of them.
    """
    with agreed(place) as facts:
        start = folder.find_start(resume=resume)
        store = open_store(config.store)
        config = replace(config, voxels=store.voxel_name(config.voxels))
        phases = phases_of(config)
        sources = sources_of(phases, store, config.voxels or "", instants=config.network.instants)
        source = sources[0]
        normalization = store.normalization(config.voxels or "")
        identity = identity_of(config, store, source, place)
        if start:
            require_same(folder.path, identity_then(start.header["identity"], config), identity)
            warn_of_other_numerics(folder.path, start.header.get("numerics", {}), numerics(place))
        clip = clip_size(config, source.num_bins, source.scale)
        recomputation = plan_recomputation(config.network, clip, place)
        learner, parent = _learner(config, source, normalization, place, start, recomputation)
        if place.world > 1:
            facts |= run_in_common(config, store, start, stop_at)
        return Prepared(
            config=config,
            store=store,
            phases=phases,
            sources=sources,
            normalization=normalization,
            identity=identity,
            start=start,
            best=folder.checkpoints.find_best(start) if start else None,
            learner=learner,
            parent=parent,
            recomputation=recomputation,
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
        takes_instants=config.network.instants,
    )
    if start:
        learner.load(load_tensors(start.path), start.header["learner"])
    return learner, parent


def _doubts(config: TrainConfig, instants: tuple[float, float] | None) -> Iterator[str]:
    if config.optim.warmup_steps >= config.steps:
        yield (
            f"optim.warmup_steps={config.optim.warmup_steps} is no less than steps={config.steps}: "
            "the learning rate never reaches optim.lr"
        )
    for phase in config.phases:
        if phase.start >= config.steps:
            yield f"the phase from step {phase.start} is never reached: steps={config.steps}"
    if instants and instants[1] - instants[0] < _FEW_INSTANTS:
        yield (
            f"network.instants=true, and the sharp frames are at {instants[0]:.2f} to {instants[1]:.2f} of their "
            "exposures: no other instant can be learned"
        )
