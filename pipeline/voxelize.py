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
from pipeline.fingerprints import fingerprint_of
from pipeline.reports import Progress, StageReport, no_progress
from pipeline.stats import CountHistogram, stats_attributes
from pipeline.storage.building import ArrayJob, RunPieces, StoreBuilder, was_interrupted
from pipeline.storage.fetching import working_folder
from pipeline.storage.nodes import Nodes
from pipeline.storage.pieces import Built, build_piece
from pipeline.storage.root import INGEST, OUTDATED, STATS, VOXELIZE, digests_of
from pipeline.storage.shards import Codec, frames_layout
from pipeline.store import Sequence, Store, open_store
from pipeline.tasks import run_all
from pipeline.voxel_blocks import VoxelBlocks
from pipeline.voxels import MAX_FRAMES_PER_BIN, frames_per_bin

log = logging.getLogger(__name__)

TRAIN = "train"
BIN_RULE = (
    "frame j of the n frames of an exposure is counted in bin floor(j * K / n); no other frames are counted"
)


def voxelize(
    store: Path,
    *,
    num_bins: int = 32,
    name: str | None = None,
    codec: Codec = "none",
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
        overwrite: count again even what is finished.

    Raises:
        UsageError: no bins, or bins that would hold more frames than uint8 can count; or a name that is none.
        StoreError: the store is missing, damaged, or being written.
    """
    started = time.monotonic()
    opened = open_store(working_folder(store), hold=False)
    name = name or f"k{num_bins}"
    if num_bins < 1:
        raise UsageError(f"--bins {num_bins}: at least 1 is needed")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"--name {name!r}: use letters, digits, - and _")
    sequences = [opened.sequence(split, key) for split, key in opened.sequence_keys]
    jobs = [_job(opened, sequence, num_bins, name, codec) for sequence in sequences]
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
        built = _write(builder, opened, name, num_bins, codec, jobs, todo, run)
    written = sum(one.written for one in built)
    seconds = time.monotonic() - started
    return dataclasses.replace(report, written=written, skipped=num_shards - written, seconds=seconds)


def _write(
    builder: StoreBuilder,
    store: Store,
    name: str,
    num_bins: int,
    codec: Codec,
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
    parameters = {"num_bins": num_bins, "rule": BIN_RULE, "codec": codec}
    record = builder.record(nodes) | {"parameters": parameters}
    if _write_statistics(builder, store, name, num_bins):
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
    histogram = _train_histogram(builder, store, name)
    if not histogram.num_values:
        log.warning("%s has no train split: its voxel grids have no statistics to train with", store.place)
        return False
    builder.write_group(group.parent, {})
    builder.write_group(group, stats_attributes(histogram, num_bins=num_bins, split=TRAIN))
    return True


def _job(store: Store, sequence: Sequence, num_bins: int, name: str, codec: Codec) -> ArrayJob:
    lengths = np.unique(np.diff(sequence.exposure))
    if -(-int(lengths.max()) // num_bins) > MAX_FRAMES_PER_BIN:
        raise UsageError(
            f"{sequence.path}: {num_bins} bins of an exposure of {lengths.max()} spike frames hold more than"
            f" {MAX_FRAMES_PER_BIN} each",
            f"use --bins {-(-int(lengths.max()) // MAX_FRAMES_PER_BIN)} or more",
        )
    shape = (sequence.num_frames, num_bins, *sequence.spike_shape)
    return ArrayJob(
        array=sequence.path / "voxels" / name,
        layout=frames_layout(shape, ("frame", "bin", "row", "column"), codec=codec),
        source=VoxelBlocks.of(sequence, store.nodes, num_bins),
        inputs=fingerprint_of(store.attributes["stages"][INGEST]["sequences"][sequence.key]),
        attributes={
            "num_bins": num_bins,
            "rule": BIN_RULE,
            "frames_per_bin": {str(n): frames_per_bin(int(n), num_bins).tolist() for n in lengths},
        },
        summarise=_sum_histograms,
    )


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


def _sum_histograms(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    total = np.sum([summary["histogram"] for summary in summaries], axis=0, dtype=np.int64)
    return {"histogram": total.tolist()}


def _train_histogram(builder: StoreBuilder, store: Store, name: str) -> CountHistogram:
    total = CountHistogram.empty()
    for sequence in store.sequences(TRAIN):
        attributes = builder.attributes(sequence.path / "voxels" / name)
        total += CountHistogram(np.array(attributes["histogram"], np.int64))
    return total
