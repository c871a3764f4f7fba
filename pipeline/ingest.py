"""`spk ingest`: recordings, checked and aligned, into a store."""

import dataclasses
import functools
import itertools
import logging
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pipeline.blocks import GreyFromSpikes, Images, PackedSpikes, Table
from pipeline.building import ArrayJob, Built, StoreBuilder, build_piece, fingerprint_of
from pipeline.config import to_plain
from pipeline.errors import AlignmentError, FormatError, StoreError, UsageError
from pipeline.examine import Examined, common_scale, examine_recording
from pipeline.manifest import Manifest
from pipeline.mapped import read_metadata
from pipeline.recordings import find_recordings
from pipeline.reports import Progress, Quarantined, StageReport, no_progress
from pipeline.shards import frames_layout, spikes_layout, table_layout
from pipeline.store import INGEST, SPK_FORMAT, STATS, TABLES, metadata_digest, stage_nodes
from pipeline.tasks import run_all

log = logging.getLogger(__name__)

MAX_LISTED = 8
IMAGE_AXES = ("frame", "channel", "row", "column")


def ingest(
    raw: Path,
    out: Path,
    manifest: Manifest,
    *,
    workers: int = 2,
    quarantine: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> StageReport:
    """Put the recordings below `raw` into the store `out`.

    Everything is examined before anything is written. What the store holds already, from the same files and
    manifest, is left alone; what changed is built again.

    Args:
        quarantine: leave out frames without a usable exposure, and report them, instead of refusing.
        overwrite: build again even what is finished, and drop sequences that `raw` no longer has.

    Raises:
        FormatError: a file is missing, damaged, or not what the manifest says.
        AlignmentError: frames without a usable exposure.
        UsageError: `out` is something else, or would lose sequences.
        StoreError: another process is writing to the store.
    """
    started = time.monotonic()
    out = Path(out)
    _require_store_or_nothing(out)
    run = functools.partial(run_all, workers=workers, scheduler=scheduler, progress=progress)
    recordings = find_recordings(manifest, Path(raw), quarantine=quarantine)
    examine = functools.partial(examine_recording, manifest=manifest)
    results = run(examine, recordings, what="recordings examined")
    problems = tuple(itertools.chain.from_iterable(found for _, found in results))
    if problems and not quarantine:
        raise AlignmentError(_listed(problems), "correct them, or leave these frames out with --quarantine")
    examined = [one for one, _ in results if one is not None]
    if not examined:
        raise AlignmentError(f"{raw}: no frame has a usable exposure:\n{_listed(problems)}")
    scale = common_scale(examined)
    jobs = [job for one in examined for job in _jobs(out, one, manifest)]
    todo = [job for job in jobs if overwrite or not job.is_finished()]
    gone = _gone(out, examined)
    if gone and not overwrite:
        raise UsageError(
            f"{out}: holds {gone[0]}, which {raw} does not have", "drop it from the store with --overwrite"
        )
    report = StageReport(
        store=out,
        sequences=len(examined),
        frames=sum(len(one.alignment.frames) for one in examined),
        written=sum(job.num_shards for job in todo),
        skipped=sum(job.num_shards for job in jobs if job not in todo),
        num_bytes=sum(job.num_bytes for job in todo),
        quarantined=problems,
        seconds=0.0,
    )
    root = _root_attributes(manifest, Path(raw), examined, scale)
    if dry_run or (not todo and not gone and _is_committed(out, root)):
        return report
    run_pieces = functools.partial(run, build_piece, what="shards written")
    built = _write(out, root, examined, todo, gone, run_pieces, overwrite)
    written = sum(one.written for one in built)
    return dataclasses.replace(
        report,
        written=written,
        skipped=sum(job.num_shards for job in jobs) - written,
        seconds=time.monotonic() - started,
    )


def _write(
    out: Path,
    root: dict[str, Any],
    examined: Sequence[Examined],
    todo: Sequence[ArrayJob],
    gone: Sequence[str],
    run: Any,
    overwrite: bool,
) -> list[Built]:
    with StoreBuilder(out, INGEST) as builder:
        earlier = read_metadata(out)["attributes"].get("stages", {}) if (out / "zarr.json").is_file() else {}
        builder.begin(outdated=[stage for stage in earlier if stage != INGEST])
        if overwrite:
            builder.forget_receipts()
        for key in gone:
            shutil.rmtree(out / key)
        built = builder.build(todo, run)
        grey = root["manifest"]["blurry_from_spikes"] is not None
        for split in {one.recording.split for one in examined}:
            builder.write_group(out / split, {})
        for one in examined:
            _refuse_copies(out / one.key, one)
            builder.write_group(out / one.key, _sequence_attributes(one, blurry_from_spikes=grey))
        digests = {one.key: metadata_digest(stage_nodes(out / one.key, INGEST)) for one in examined}
        builder.commit(root, {"sequences": digests})
    if len(earlier) > 1:
        log.warning("%s: voxel grids have to be brought up to date: spk voxelize %s", out, out)
    return built


def _jobs(out: Path, one: Examined, manifest: Manifest) -> list[ArrayJob]:
    """The arrays of one sequence."""
    frames, sequence = len(one.alignment.frames), out / one.key
    height, width = one.spike_shape
    inputs = fingerprint_of([_sources(one), to_plain(one.files.format), one.files.lengths])
    images = functools.partial(Images, height=one.rgb_shape[0], width=one.rgb_shape[1])
    layout = frames_layout((frames, 3, *one.rgb_shape), IMAGE_AXES)
    spikes = spikes_layout((sum(one.files.lengths), height, -(-width // 8)))
    jobs = [
        ArrayJob(
            array=sequence / "spikes", layout=spikes, source=PackedSpikes(files=one.files), inputs=inputs
        )
    ]
    if manifest.blurry_from_spikes is not None:
        spans = tuple((int(a), int(b)) for a, b in one.alignment.exposure)
        grey = GreyFromSpikes(
            files=one.files, spans=spans, threshold=manifest.blurry_from_spikes, scale=one.scale
        )
        about = {"made_from": f"mean spike rate of the exposure x threshold {manifest.blurry_from_spikes}"}
        key = fingerprint_of([inputs, spans, about])
        jobs.append(_image_job(sequence / "blurry", layout, grey, key, about))
    elif any(one.blurry_paths):
        jobs.append(_image_job(sequence / "blurry", layout, images(paths=one.blurry_paths), inputs, {}))
    if any(one.sharp_paths):
        jobs.append(_image_job(sequence / "sharp", layout, images(paths=one.sharp_paths), inputs, {}))
    return jobs + [_table_job(sequence / name, getattr(one.alignment, name)) for name in TABLES]


def _image_job(array: Path, layout: Any, source: Any, inputs: str, attributes: dict[str, Any]) -> ArrayJob:
    return ArrayJob(
        array=array, layout=layout, source=source, inputs=inputs, attributes=attributes, summarise=_join_sums
    )


def _join_sums(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"pixels_crc32c": [value for summary in summaries for value in summary["pixels_crc32c"]]}


def _table_job(array: Path, values: npt.NDArray[Any]) -> ArrayJob:
    axes = ("frame", "edge")[: values.ndim]
    rows = tuple(map(tuple, values.tolist())) if values.ndim > 1 else tuple(values.tolist())
    return ArrayJob(
        array=array,
        layout=table_layout(values.shape, axes),
        source=Table(values=rows),
        inputs=fingerprint_of(rows),
    )


def _sources(one: Examined) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each input file: what shows, without reading it, that it is the same."""
    paths = [*one.files.paths, *one.blurry_paths, *one.sharp_paths]
    states = [(path, path.stat()) for path in paths if path is not None]
    return [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]


def _sequence_attributes(one: Examined, *, blurry_from_spikes: bool) -> dict[str, Any]:
    arrays = ["spikes", *TABLES]
    arrays += ["blurry"] if any(one.blurry_paths) or blurry_from_spikes else []
    arrays += ["sharp"] if any(one.sharp_paths) else []
    return {
        "source_name": one.recording.source_name,
        "frames": list(one.alignment.frames),
        "arrays": arrays,
        "spike_shape": list(one.spike_shape),
        "format": to_plain(one.files.format),
        "sources": _sources(one),
        "residual_ns": one.alignment.residual_ns.tolist(),
        "set_aside": [dataclasses.asdict(problem) for problem in one.alignment.problems],
    }


def _refuse_copies(sequence: Path, one: Examined) -> None:
    """Refuse a sharp frame with the very pixels of the blurry one: a copy that fills a gap, and teaches nothing."""
    if not (any(one.blurry_paths) and any(one.sharp_paths)):
        return
    sums = [read_metadata(sequence / name)["attributes"]["pixels_crc32c"] for name in ("blurry", "sharp")]
    for blurry, sharp, path in zip(*sums, one.sharp_paths, strict=True):
        if path is not None and blurry == sharp:
            raise FormatError(
                f"{path}: the sharp frame has the very pixels of the blurry one",
                "remove the copy, and declare `missing_sharp: test_only` in the manifest if there is no sharp frame",
            )


def _root_attributes(
    manifest: Manifest, raw: Path, examined: Sequence[Examined], scale: int
) -> dict[str, Any]:
    splits: dict[str, list[str]] = {}
    for one in examined:
        splits.setdefault(one.recording.split, []).append(one.recording.sequence)
    if STATS in splits:
        raise UsageError(f"manifest {manifest.name}: a split cannot be called {STATS!r}", "rename it")
    return {
        "spk_format": SPK_FORMAT,
        "name": manifest.name,
        "manifest": to_plain(manifest),
        "scale": scale,
        "splits": splits,
        "provenance": {"raw": str(raw.resolve()), "spk": program_version()},
    }


def program_version() -> str:
    """The installed version of this program, or "not installed"."""
    try:
        return version("spike-deblur")
    except PackageNotFoundError:
        return "not installed"


def _is_committed(out: Path, root: dict[str, Any]) -> bool:
    if not (out / "zarr.json").is_file():
        return False
    attributes = read_metadata(out)["attributes"]
    same = all(attributes.get(key) == value for key, value in root.items())
    return same and INGEST in attributes.get("stages", {})


def _gone(out: Path, examined: Sequence[Examined]) -> list[str]:
    """Sequences that the store holds and the recordings do not."""
    if not (out / "zarr.json").is_file():
        return []
    splits = read_metadata(out)["attributes"].get("splits", {})
    known = {one.key for one in examined}
    return [
        key
        for split, names in splits.items()
        for key in (f"{split}/{name}" for name in names)
        if key not in known
    ]


def _require_store_or_nothing(out: Path) -> None:
    if out.is_dir() and any(path.name != ".spk" for path in out.iterdir()):
        try:
            known = "spk_format" in read_metadata(out)["attributes"]
        except StoreError:
            known = (out / ".spk").is_dir()  # an ingest was interrupted before it wrote the root
        if not known:
            raise UsageError(f"{out}: exists and is not a store", "choose another directory with -o")
    elif out.exists() and not out.is_dir():
        raise UsageError(f"{out}: exists and is not a directory", "choose another directory with -o")


def _listed(problems: Sequence[Quarantined]) -> str:
    lines = [f"{problem.path}: {problem.reason}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    return "\n".join(lines)
