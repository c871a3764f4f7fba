"""Who takes part in an evaluation, matched with the store before anything is computed."""

import logging
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace

import torch

from model.evaluation.config import EvaluateConfig
from model.evaluation.methods import BLURRY, FIXED, RESTORED, SPIKE_ONLY
from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from model.restorer import Restorer
from model.tiling import Tiling
from pipeline.ablations import ChangedSpikes, Threshold, change_spikes
from pipeline.errors import UsageError
from pipeline.store import Sequence, Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """A network that takes part, and how a sequence is cut for it.

    Attributes:
        voxels: name of the voxel grids it takes; None for a network that takes none.
        changed: the spikes it is given in place of the recorded ones, by sequence; None for those recorded.
    """

    restorer: Restorer
    voxels: str | None
    tiling: Tiling
    changed: Mapping[str, ChangedSpikes] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineup:
    """Who restores the frames of a split, and what they are scored by.

    Attributes:
        entrants: the networks, by method name; `restored` is the one under test.
        voxels: name of the voxel grids for the spike-only estimate and the pictures.
        scale: RGB pixels per spike pixel, along a side.
        device: where it is done.
        protocols: to score by.
        ablated: names of the entrants that are the network under test with other spikes.
        estimates: other spikes to make the spike-only estimate of as well, by method and sequence.
    """

    entrants: Mapping[str, Entrant]
    voxels: str
    scale: int
    device: torch.device
    protocols: Several[Protocol] = (PROTOCOLS[DEFAULT],)
    ablated: tuple[str, ...] = ()
    estimates: Mapping[str, Mapping[str, ChangedSpikes]] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """All that is scored, in the order of the tables."""
        others = (name for name in self.entrants if name != RESTORED and name not in self.ablated)
        return (RESTORED, *self.ablated, *others, SPIKE_ONLY, *self.estimates, BLURRY)


def line_up(
    restorers: Mapping[str, Restorer],
    store: Store,
    sequences: Several[Sequence],
    config: EvaluateConfig,
    device: torch.device,
) -> Lineup:
    """Match networks with a store, and make what else the settings ask for.

    Args:
        restorers: by method name; `restored` is the one under test.

    Raises:
        UsageError: a network and the store do not fit each other, or its spikes cannot be changed as asked.
        StoreError: the store lacks voxel grids.
    """
    entrants = {name: _entrant(one, store, sequences[0], config) for name, one in restorers.items()}
    tested = entrants[RESTORED]
    if config.ablations and tested.voxels is None:
        raise UsageError(
            f"{tested.restorer.info.path}: takes no spikes, so there are none to change",
            "evaluate a network with spikes, without --ablate and --thresholds for this one",
        )
    changed = change_spikes(config.ablations, tested.voxels or "", sequences)
    return Lineup(
        entrants=entrants | {name: replace(tested, changed=spikes) for name, spikes in changed.items()},
        voxels=_voxels(store, tested, config),
        scale=store.scale,
        device=device,
        protocols=config.chosen,
        ablated=tuple(changed),
        estimates={
            f"{SPIKE_ONLY} {camera.name}": changed[camera.name]
            for camera in config.ablations
            if isinstance(camera, Threshold)
        },
    )


def sequences_to_restore(store: Store, split: str) -> list[Sequence]:
    """The sequences of a split.

    Raises:
        UsageError: there are none, or one has nothing to restore.
    """
    sequences = store.sequences(split)
    there = {name: len(members) for name, members in store.splits.items() if members}
    if not sequences:
        listed = ", ".join(f"{name} ({n} sequence{'' if n == 1 else 's'})" for name, n in there.items())
        raise UsageError(
            f"{store.place}: split {split!r} has no sequences; there are: {listed or 'none at all'}",
            f"--split {next(iter(there))}" if there else "ingest some recordings first",
        )
    without = [sequence.name for sequence in sequences if sequence.blurry is None]
    if without:
        raise UsageError(
            f"{store.place}: {split}/{without[0]} has no blurry frames, so there is nothing to restore",
            "ingest a data set with RGB frames, or set blurry_from_spikes in its manifest",
        )
    return sequences


def check_names(compare: Iterable[str], config: EvaluateConfig) -> None:
    """Raises UsageError where the name of another network is that of something else."""
    rows = [ablation.name for ablation in config.ablations]
    fixed = (*FIXED, *rows, *(f"{SPIKE_ONLY} {row}" for row in rows))
    taken = [name for name in compare if name in fixed or not name]
    if taken:
        raise UsageError(f"compare: {taken[0]!r} is taken; choose another name than {', '.join(fixed)}")


def _entrant(restorer: Restorer, store: Store, sequence: Sequence, config: EvaluateConfig) -> Entrant:
    path, scale = restorer.info.path, store.scale
    tiling = config.tiling(restorer.num_frames)
    tiling.require_scale(scale, store.place)
    if not restorer.takes_spikes:
        return Entrant(restorer=restorer, voxels=None, tiling=tiling)
    voxels = store.voxel_name(config.voxels or restorer.info.voxels)
    bins = sequence.voxels(voxels).shape[1]
    if bins != restorer.info.num_bins:
        wanted = restorer.info.num_bins
        raise UsageError(
            f"{path}: takes voxel grids of {wanted} bins; {voxels} of {store.place} has {bins}",
            f"spk voxelize {store.place} --bins {wanted} --name k{wanted}, then voxels=k{wanted}",
        )
    if restorer.info.scale != scale:
        logger.warning(
            "%s was trained at scale %d; %s has scale %d", path, restorer.info.scale, store.path, scale
        )
    return Entrant(restorer=restorer, voxels=voxels, tiling=tiling)


def _voxels(store: Store, entrant: Entrant, config: EvaluateConfig) -> str:
    """The voxel grids for the spike-only estimate: the network's; any for a network that takes none."""
    wanted = config.voxels or entrant.voxels
    return store.voxel_name(wanted) if wanted or not store.voxel_names else store.voxel_names[0]
