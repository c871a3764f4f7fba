"""`spk ingest`: recordings, checked and aligned, into a store."""

import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.alignment.mismatches import likely_cause, questionable
from pipeline.config import to_plain
from pipeline.errors import AlignmentError, UsageError
from pipeline.examine import Examined, common_scale, examine_recording
from pipeline.manifest import Manifest
from pipeline.recordings import find_recordings
from pipeline.reports import Progress, Quarantined, StageReport, no_progress
from pipeline.sequence_jobs import SequenceJobs, sequence_jobs
from pipeline.storage.building import ArrayJob, RunPieces, StoreBuilder, was_interrupted
from pipeline.storage.fetching import working_folder
from pipeline.storage.nodes import Nodes
from pipeline.storage.pieces import Built, build_piece
from pipeline.storage.places import shown
from pipeline.storage.root import (
    INGEST,
    OFFSETS,
    OUTDATED,
    SPK_FORMAT,
    STATS,
    Attributes,
    digests_of,
    program_version,
    read_root,
    require_store_or_nothing,
    sequence_keys,
)
from pipeline.storage.shards import Codec
from pipeline.store import open_store
from pipeline.tables import EXPOSURE
from pipeline.tasks import run_all

log = logging.getLogger(__name__)

MAX_LISTED = 8


def ingest(
    raw: Path,
    out: Path,
    manifest: Manifest,
    *,
    codec: Codec = "none",
    workers: int = 2,
    quarantine: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> StageReport:
    """Put the recordings below `raw` into the store `out`.

    Everything is examined before anything is written. What the store holds already, from the same files and
    manifest, is left alone; what changed is built again, and voxel grids are then to be brought up to date.

    Args:
        codec: "none" for arrays that are read straight from the map; "lz4", "zstd" for small disks.
        quarantine: leave out frames without a usable exposure, and report them, instead of refusing.
        overwrite: build again even what is finished, and drop sequences that `raw` no longer has.

    Raises:
        FormatError: a file is missing, damaged, or not what the manifest says.
        AlignmentError: frames without a usable exposure.
        UsageError: `out` is something else, or would lose sequences.
        StoreError: the store's root is damaged, or another process is writing to the store.
    """
    started = time.monotonic()
    place, raw, out = out, Path(raw), working_folder(out)
    require_store_or_nothing(out)
    seen = read_root(out)
    run = functools.partial(run_all, workers=workers, scheduler=scheduler, progress=progress)
    recordings = find_recordings(manifest, raw, quarantine=quarantine)
    offsets = (seen or {}).get(OFFSETS, {})
    examine = functools.partial(examine_recording, manifest=manifest, offsets=offsets, quarantine=quarantine)
    results = run(examine, recordings, what="recordings examined")
    problems = tuple(itertools.chain.from_iterable(found for _, found in results))
    examined = _usable([one for one, _ in results if one is not None], problems, raw, quarantine=quarantine)
    root = _root_attributes(manifest, raw, examined) | {"codec": codec}
    if offsets:
        root[OFFSETS] = offsets
        log.info("%s: corrections of spk align are kept: %s", out, offsets)
    sequences = [sequence_jobs(raw, out, one, manifest, codec) for one in examined]
    jobs = [job for sequence in sequences for job in sequence.jobs]
    nodes = Nodes(out, digests_of(seen, outdated=True))
    todo = [job for job in jobs if overwrite or not job.is_finished(nodes)]
    gone = _gone(out, seen, root, overwrite=overwrite)
    num_shards = sum(job.num_shards for job in jobs)
    written = sum(job.num_shards for job in todo)
    report = StageReport(
        store=Path(place),
        sequences=len(examined),
        frames=sum(len(one.alignment.frames) for one in examined),
        written=written,
        skipped=num_shards - written,
        num_bytes=sum(job.num_bytes for job in todo),
        quarantined=problems,
        seconds=time.monotonic() - started,
    )
    described = _is_committed(seen, root) and all(one.is_described(nodes) for one in sequences)
    if dry_run or (described and not todo and not gone and not was_interrupted(out, INGEST)):
        return report
    with StoreBuilder(out, INGEST, seen) as builder:
        if overwrite:
            builder.forget_receipts()
        run_pieces = functools.partial(run, build_piece, what="shards written")
        built = _write(builder, root, seen, sequences, todo, run_pieces)
    _tell_mismatches(out, sorted({job.array.parent.relative_to(out).as_posix() for job in todo}))
    if (read_root(out) or {}).get(OUTDATED):
        log.warning(
            "%s: voxel grids have to be brought up to date: spk voxelize %s", shown(place), shown(place)
        )
    written = sum(one.written for one in built)
    seconds = time.monotonic() - started
    return dataclasses.replace(report, written=written, skipped=num_shards - written, seconds=seconds)


def _usable(
    examined: Sequence[Examined], problems: Sequence[Quarantined], raw: Path, *, quarantine: bool
) -> Sequence[Examined]:
    if problems and not quarantine:
        raise AlignmentError(_listed(problems), "correct them, or leave these frames out with --quarantine")
    if not examined:
        raise AlignmentError(f"{raw}: no frame has a usable exposure:\n{_listed(problems)}")
    return examined


def _write(
    builder: StoreBuilder,
    root: Attributes,
    seen: Attributes | None,
    sequences: Sequence[SequenceJobs],
    todo: Sequence[ArrayJob],
    run: RunPieces,
) -> list[Built]:
    out = builder.store
    builder.begin(todo)
    built = builder.build([job for job in todo if job.array.name != EXPOSURE], run)
    compare = functools.partial(run, what="exposures compared")
    built += builder.build([job for job in todo if job.array.name == EXPOSURE], compare)
    for split in root["splits"]:
        builder.write_group(out / split, {})
    for sequence in sequences:
        sequence.refuse_copies(builder.attributes)
        builder.write_group(out / sequence.key, sequence.attributes())
    record = builder.record({sequence.key: sequence.nodes for sequence in sequences})
    before = seen or {}
    voxels = {stage: one for stage, one in before.get("stages", {}).items() if stage != INGEST}
    if before.get("stages", {}).get(INGEST) == record:
        builder.commit(root, {INGEST: record} | voxels, before.get(OUTDATED))
    else:
        builder.commit(root, {INGEST: record}, before.get(OUTDATED, {}) | voxels)
    return built


def _tell_mismatches(out: Path, keys: Sequence[str]) -> None:
    """Warn of sequences whose frames do not fit their spikes, with what seems to be the cause."""
    store = open_store(out, check=False, hold=False)
    for key in keys:
        sequence = store.sequence(*key.split("/"))
        if (r2 := questionable(sequence.light)) is not None:
            cause = likely_cause(sequence, store.scale)
            log.warning("%s: blurry frames do not fit the spikes (median R² %.2f): %s", key, r2, cause)


def _root_attributes(manifest: Manifest, raw: Path, examined: Sequence[Examined]) -> Attributes:
    splits: dict[str, list[str]] = {}
    for one in examined:
        splits.setdefault(one.recording.split, []).append(one.recording.sequence)
    if STATS in splits:
        raise UsageError(f"manifest {manifest.name}: a split cannot be called {STATS!r}", "rename it")
    return {
        "spk_format": SPK_FORMAT,
        "name": manifest.name,
        "manifest": to_plain(manifest),
        "scale": common_scale(examined),
        "splits": splits,
        "provenance": {"raw": str(raw.resolve()), "spk": program_version()},
    }


def _is_committed(seen: Attributes | None, root: Attributes) -> bool:
    if seen is None or INGEST not in seen["stages"]:
        return False
    return all(seen.get(key) == value for key, value in root.items())


def _gone(out: Path, seen: Attributes | None, root: Attributes, *, overwrite: bool) -> list[str]:
    """Sequences that the store holds and the recordings do not."""
    known = set(sequence_keys(root))
    gone = [key for key in (sequence_keys(seen) if seen else []) if key not in known]
    if gone and not overwrite:
        raise UsageError(
            f"{out}: holds {gone[0]}, which {root['provenance']['raw']} does not have",
            "drop it from the store with --overwrite",
        )
    return gone


def _listed(problems: Sequence[Quarantined]) -> str:
    lines = [f"{problem.path}: {problem.reason}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    return "\n".join(lines)
