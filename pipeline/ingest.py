"""`spk ingest`: recordings, checked and aligned, into a store."""

import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.alignment.mismatches import likely_cause, questionable
from pipeline.config import to_plain
from pipeline.errors import AlignmentError, UsageError
from pipeline.examine import Examined, common_scale, examine_recording
from pipeline.manifest import Manifest
from pipeline.recordings import find_recordings
from pipeline.reports import Progress, Quarantined, StageReport, listed, no_progress
from pipeline.sequence_jobs import SequenceJobs, sequence_jobs
from pipeline.storage.building import ArrayJob, RunPieces, StoreBuilder, was_interrupted
from pipeline.storage.fetching import working_folder
from pipeline.storage.nodes import Nodes
from pipeline.storage.part_building import PartBuilder
from pipeline.storage.pieces import Built, build_piece
from pipeline.storage.places import require_folder
from pipeline.storage.plans import BuiltSequence, Part, PartRecord, Plan, require_same
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
    part: Part | None = None,
    progress: Progress = no_progress,
) -> StageReport:
    """Put the recordings below `raw` into the store `out`.

    Everything is examined before anything is written. What the store holds already, from the same files and
    manifest, is left alone; what changed is built again, and voxel grids are then to be brought up to date.

    Args:
        codec: "none" for arrays that are read straight from the map; "lz4", "zstd" for small disks.
        quarantine: leave out frames without a usable exposure, and report them, instead of refusing.
        overwrite: build again even what is finished, and drop sequences that `raw` no longer has.
        part: examine and build only this part of the recordings, beside other processes with the other parts, and
            leave it to `finalise` to make them a store.

    Raises:
        FormatError: a file is missing, damaged, or not what the manifest says.
        AlignmentError: frames without a usable exposure.
        UsageError: `out` is something else, or would lose sequences.
        StoreError: the store's root is damaged, or another process is writing to the store.
    """
    started = time.monotonic()
    if part is not None:
        require_folder(out)
    place, raw, out = out, Path(raw), working_folder(out)
    if scheduler is not None:  # workers may be in another directory
        raw, out = raw.absolute(), out.absolute()
    require_store_or_nothing(out)
    seen = read_root(out)
    run = functools.partial(run_all, workers=workers, scheduler=scheduler, progress=progress)
    found = find_recordings(manifest, raw, quarantine=quarantine)
    recordings = part.share(found) if part else found
    offsets = (seen or {}).get(OFFSETS, {})
    examine = functools.partial(examine_recording, manifest=manifest, offsets=offsets, quarantine=quarantine)
    results = run(examine, recordings, what="recordings examined")
    problems = tuple(itertools.chain.from_iterable(found for _, found in results))
    examined = [one for one, _ in results if one is not None]
    _require_usable(examined, problems, raw, quarantine=quarantine, may_be_none=part is not None)
    settings = _settings(manifest, raw, codec, offsets)
    if offsets:
        log.info("%s: corrections of spk align are kept: %s", out, offsets)
    sequences = [sequence_jobs(raw, out, one, manifest, codec) for one in examined]
    jobs = [job for sequence in sequences for job in sequence.jobs]
    nodes = Nodes(out, digests_of(seen, outdated=True))
    todo = [job for job in jobs if overwrite or not job.is_finished(nodes)]
    keys = [one.key for one in (found if part else examined)]
    gone = _gone(out, seen, keys, raw, overwrite=overwrite)
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
    run_pieces = functools.partial(run, build_piece, what="shards written")
    root = root_attributes(settings, {one.key: one.scale for one in examined}) if examined else {}
    if part is not None:
        settings |= {"quarantine": quarantine, "overwrite": overwrite}
        plan = Plan(stage=INGEST, count=part.count, sequences=tuple(keys), settings=settings)
        if dry_run:
            require_same(out, plan)
            return report
        with PartBuilder(out, plan, part, seen) as builder:
            built = _build_part(builder, sequences, todo, run_pieces, report)
        return _counted(report, built, num_shards, started)
    described = _is_committed(seen, root) and all(one.is_described(nodes) for one in sequences)
    if dry_run or (described and not todo and not gone and not was_interrupted(out, INGEST)):
        return report
    with StoreBuilder(out, INGEST, seen) as builder:
        if overwrite:
            builder.forget_receipts()
        built = _build(builder, sequences, todo, run_pieces)
        commit(builder, seen, root, {one.key: one.attributes() for one in sequences})
    tell(out, {job.array.parent.relative_to(out).as_posix() for job in todo})
    return _counted(report, built, num_shards, started)


def _counted(report: StageReport, built: Sequence[Built], num_shards: int, started: float) -> StageReport:
    written = sum(one.written for one in built)
    seconds = time.monotonic() - started
    return dataclasses.replace(report, written=written, skipped=num_shards - written, seconds=seconds)


def _require_usable(
    examined: Sequence[Examined],
    problems: Sequence[Quarantined],
    raw: Path,
    *,
    quarantine: bool,
    may_be_none: bool,
) -> None:
    if problems and not quarantine:
        raise AlignmentError(listed(problems), "correct them, or leave these frames out with --quarantine")
    if not examined and not may_be_none:
        raise nothing_usable(raw, problems)


def nothing_usable(raw: Path, problems: Sequence[Quarantined]) -> AlignmentError:
    """The error of recordings of which nothing is left."""
    return AlignmentError(f"{raw}: no frame has a usable exposure:\n{listed(problems)}")


def _build_part(
    builder: PartBuilder,
    sequences: Sequence[SequenceJobs],
    todo: Sequence[ArrayJob],
    run: RunPieces,
    report: StageReport,
) -> list[Built]:
    if builder.plan.settings["overwrite"]:
        builder.forget_receipts()
    built = _build(builder, sequences, todo, run)
    written = {job.array for job in todo}
    done = {
        one.key: BuiltSequence(
            arrays=builder.digests(f"{one.key}/{name}" for name in one.arrays),
            group=one.attributes(),
            frames=len(one.examined.alignment.frames),
            scale=one.examined.scale,
            is_new=any(job.array in written for job in one.jobs),
        )
        for one in sequences
    }
    builder.keep(PartRecord.of(done, report))
    return built


def _build(
    builder: StoreBuilder, sequences: Sequence[SequenceJobs], todo: Sequence[ArrayJob], run: RunPieces
) -> list[Built]:
    builder.begin(todo)
    built = builder.build([job for job in todo if job.array.name != EXPOSURE], run)
    compare = functools.partial(run, what="exposures compared")
    built += builder.build([job for job in todo if job.array.name == EXPOSURE], compare)
    for sequence in sequences:
        sequence.refuse_copies(builder.attributes)
    return built


def commit(
    builder: StoreBuilder, seen: Attributes | None, root: Attributes, groups: Mapping[str, Attributes]
) -> None:
    """Make sequences whose arrays are built the store.

    Args:
        seen, root: attributes of the store's root as it is, and as it is to be.
        groups: what each sequence's group carries, by its key.
    """
    for split in root["splits"]:
        builder.write_group(builder.store / split, {})
    for key, attributes in groups.items():
        builder.write_group(builder.store / key, attributes)
    record = builder.record(
        {
            key: [key.split("/")[0], key, *(f"{key}/{name}" for name in attributes["arrays"])]
            for key, attributes in groups.items()
        }
    )
    before = seen or {}
    voxels = {stage: one for stage, one in before.get("stages", {}).items() if stage != INGEST}
    if before.get("stages", {}).get(INGEST) == record:
        builder.commit(root, {INGEST: record} | voxels, before.get(OUTDATED))
    else:
        builder.commit(root, {INGEST: record}, before.get(OUTDATED, {}) | voxels)


def tell(out: Path, keys: Collection[str]) -> None:
    """Warn of new sequences whose frames do not fit their spikes, with what seems to be the cause, and of voxel grids
    that are of other spikes now."""
    store = open_store(out, check=False, hold=False)
    for key in sorted(keys):
        sequence = store.sequence(*key.split("/"))
        if (r2 := questionable(sequence.light)) is not None:
            cause = likely_cause(sequence, store.scale)
            log.warning("%s: blurry frames do not fit the spikes (median R² %.2f): %s", key, r2, cause)
    if store.attributes.get(OUTDATED):
        log.warning(
            "%s: voxel grids have to be brought up to date: spk voxelize %s", store.place, store.place
        )


def _settings(manifest: Manifest, raw: Path, codec: Codec, offsets: Mapping[str, int]) -> dict[str, Any]:
    """What all sequences of a store have in common, as JSON values."""
    return {
        "manifest": to_plain(manifest),
        "provenance": {"raw": str(raw.resolve()), "spk": program_version()},
        "codec": codec,
        OFFSETS: dict(offsets),
    }


def root_attributes(settings: Mapping[str, Any], scales: Mapping[str, int]) -> Attributes:
    """What the root is to say of the recordings with these scales, by their keys.

    Raises:
        FormatError: the scales differ.
        UsageError: the name of a split is taken.
    """
    splits: dict[str, list[str]] = {}
    for key in scales:
        split, _, name = key.partition("/")
        splits.setdefault(split, []).append(name)
    manifest = settings["manifest"]
    if STATS in splits:
        raise UsageError(f"manifest {manifest['name']}: a split cannot be called {STATS!r}", "rename it")
    root = {
        "spk_format": SPK_FORMAT,
        "name": manifest["name"],
        "manifest": manifest,
        "scale": common_scale(scales),
        "splits": splits,
        "provenance": settings["provenance"],
        "codec": settings["codec"],
    }
    return root | ({OFFSETS: settings[OFFSETS]} if settings[OFFSETS] else {})


def _is_committed(seen: Attributes | None, root: Attributes) -> bool:
    if seen is None or INGEST not in seen["stages"]:
        return False
    return all(seen.get(key) == value for key, value in root.items())


def _gone(
    out: Path, seen: Attributes | None, keys: Sequence[str], raw: Path, *, overwrite: bool
) -> list[str]:
    """Sequences that the store holds and the recordings do not."""
    known = set(keys)
    gone = [key for key in (sequence_keys(seen) if seen else []) if key not in known]
    if gone and not overwrite:
        raise UsageError(
            f"{out}: holds {gone[0]}, which {raw.resolve()} does not have",
            "drop it from the store with --overwrite",
        )
    return gone
