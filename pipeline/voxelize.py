"""`spk voxelize`: spike counts per time bin for every exposure of a store, and the statistics of the train split."""

import dataclasses
import functools
import logging
import re
import time
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.reports import Progress, StageReport, no_progress
from pipeline.stats import stats_attributes
from pipeline.storage.building import ArrayJob, RunPieces, StoreBuilder, was_interrupted
from pipeline.storage.fetching import working_folder
from pipeline.storage.nodes import Nodes
from pipeline.storage.pieces import Built, build_piece
from pipeline.storage.root import OUTDATED, STATS, VOXELIZE, digests_of
from pipeline.storage.shards import Codec
from pipeline.store import Sequence, Store, open_store
from pipeline.tasks import run_all
from pipeline.virtual_voxels import VIRTUAL
from pipeline.voxel_jobs import TRAIN, train_histogram, voxel_job
from pipeline.voxels import BIN_RULE

log = logging.getLogger(__name__)


def voxelize(
    store: Path,
    *,
    num_bins: int = 32,
    name: str | None = None,
    codec: Codec = "none",
    virtual: bool = False,
    workers: int = 2,
    overwrite: bool = False,
    dry_run: bool = False,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> StageReport:
    """Add voxel grids of `num_bins` bins to a store, with the exact statistics of its train split.

    What is there already, from the same spikes and settings, is left alone.

    Args:
        name: of the grids in the store; "k32" for 32 bins.
        codec: "none" for grids that are read straight from the map; "lz4", "zstd" for small disks.
        virtual: store the rule and the statistics alone; readers count the spikes again, of what they need.
        overwrite: count again even what is finished.

    Raises:
        UsageError: no bins, or bins that would hold more frames than can be counted; a name that is none; a codec
            for grids that are not stored.
        StoreError: the store is missing, damaged, or being written.
    """
    started = time.monotonic()
    opened = open_store(working_folder(store), hold=False)
    name = name or f"k{num_bins}"
    if num_bins < 1:
        raise UsageError(f"--bins {num_bins}: at least 1 is needed")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"--name {name!r}: use letters, digits, - and _")
    if virtual and codec != "none":
        raise UsageError(f"--codec {codec}: there is nothing to compress in grids that are --virtual")
    sequences = [opened.sequence(split, key) for split, key in opened.sequence_keys]
    jobs = [voxel_job(opened, one, num_bins, name, codec, virtual=virtual) for one in sequences]
    known = Nodes(opened.path, digests_of(opened.attributes, outdated=True))
    todo = [job for job in jobs if overwrite or not job.is_finished(known)]
    _tell_empty_bins(sequences, num_bins)
    run = functools.partial(
        run_all,
        build_piece,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
        what=f"voxel grids {name}",
    )
    num_shards = sum(job.num_shards for job in jobs)
    written = sum(job.num_shards for job in todo)
    report = StageReport(
        store=Path(store),
        sequences=len(jobs),
        frames=sum(sequence.num_frames for sequence in sequences),
        written=written,
        skipped=num_shards - written,
        num_bytes=sum(job.num_bytes for job in todo),
        quarantined=(),
        seconds=time.monotonic() - started,
    )
    stage = VOXELIZE + name
    if dry_run or (not todo and stage in opened.stages and not was_interrupted(opened.path, stage)):
        return report
    with StoreBuilder(opened.path, stage, opened.attributes) as builder:
        if overwrite:
            builder.forget_receipts()
        parameters = {"num_bins": num_bins, "rule": BIN_RULE, "codec": codec}
        parameters |= {VIRTUAL: True} if virtual else {}
        built = _write(builder, opened, name, parameters, jobs, todo, run)
    written = sum(one.written for one in built)
    seconds = time.monotonic() - started
    return dataclasses.replace(report, written=written, skipped=num_shards - written, seconds=seconds)


def _write(
    builder: StoreBuilder,
    store: Store,
    name: str,
    parameters: dict[str, Any],
    jobs: Many[ArrayJob],
    todo: Many[ArrayJob],
    run: RunPieces,
) -> list[Built]:
    builder.begin(todo)
    for job in jobs:
        builder.write_group(job.array.parent, {})
    built = builder.build(todo, run)
    groups = (job.array.parent.relative_to(store.path).as_posix() for job in jobs)
    nodes = {group.removesuffix("/voxels"): [group, f"{group}/{name}"] for group in groups}
    record = builder.record(nodes) | {"parameters": parameters}
    if _write_statistics(builder, store, name, parameters["num_bins"]):
        record[STATS] = builder.digests([STATS, f"{STATS}/{name}"])
    stages, outdated = (
        {stage: one for stage, one in store.attributes.get(kind, {}).items() if stage != builder.stage}
        for kind in ("stages", OUTDATED)
    )
    builder.commit(store.attributes, stages | {builder.stage: record}, outdated)
    return built


def _write_statistics(builder: StoreBuilder, store: Store, name: str, num_bins: int) -> bool:
    """Write the statistics of the train split; without one, see that there are none."""
    group = store.path / STATS / name
    histogram = train_histogram(store, name, builder.attributes)
    if not histogram.num_values:
        log.warning("%s has no train split: its voxel grids have no statistics to train with", store.place)
        return False
    builder.write_group(group.parent, {})
    builder.write_group(group, stats_attributes(histogram, num_bins=num_bins, split=TRAIN))
    return True


def _tell_empty_bins(sequences: Many[Sequence], num_bins: int) -> None:
    shortest = [int(np.diff(sequence.exposure).min()) for sequence in sequences]
    if affected := [sequence for sequence, n in zip(sequences, shortest, strict=True) if n < num_bins]:
        log.warning(
            "exposures of %d spike frames leave some of %d bins empty: in %s and %d other sequences",
            min(shortest),
            num_bins,
            affected[0].key,
            len(affected) - 1,
        )
