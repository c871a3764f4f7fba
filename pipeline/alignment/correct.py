"""`spk align STORE --apply`: exposures corrected by the offsets that the check found. Raw data is never touched.

The store's root keeps the offsets, so that ingesting the same recordings again arrives at the same tables.
"""

import functools
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipeline.alignment.sweeps import Recorded
from pipeline.blocks import GreyFromSpikes
from pipeline.errors import AlignmentError
from pipeline.reports import Progress, no_progress
from pipeline.sequence_jobs import grey_facts, image_job
from pipeline.spans import nanoseconds
from pipeline.storage.building import ArrayJob, StoreBuilder
from pipeline.storage.mapped import MappedArray
from pipeline.storage.pieces import build_piece
from pipeline.storage.root import INGEST, OFFSETS, OUTDATED, WRITTEN_LAST
from pipeline.store import Sequence, Store
from pipeline.tables import EXPOSURE, Lit, table_jobs
from pipeline.tasks import run_all

Tables = Mapping[str, npt.NDArray[np.int64]]


def correct_alignment(
    store: Store, corrections: Mapping[str, int], *, workers: int = 2, progress: Progress = no_progress
) -> dict[str, int]:
    """Add spike frames to the exposures of some sequences, and record it.

    Voxel grids of these sequences are then to be brought up to date. When it is interrupted, nothing has
    changed.

    Args:
        corrections: spike frames to add, by "split/sequence", besides what was corrected before.

    Returns:
        All offsets that the store now records.

    Raises:
        AlignmentError: an exposure would leave the recording; nothing was changed then.
        StoreError: another process is writing to the store.
    """
    wanted = {key: offset for key, offset in corrections.items() if offset}
    before: dict[str, int] = store.attributes.get(OFFSETS, {})
    if not wanted:
        return before
    sequences = {key: store.sequence(*key.split("/")) for key in wanted}
    for key, sequence in sequences.items():
        _require_inside(key, sequence, wanted[key])
    jobs = [
        job
        for key, sequence in sequences.items()
        for job in _jobs(store, sequence, _moved(sequence, wanted[key]))
    ]
    offsets = before | {key: before.get(key, 0) + offset for key, offset in wanted.items()}
    offsets = {key: offset for key, offset in sorted(offsets.items()) if offset}
    root = {name: value for name, value in store.attributes.items() if name not in (OFFSETS, *WRITTEN_LAST)}
    root |= {OFFSETS: offsets} if offsets else {}
    groups = {key: sequences[key].attributes | {"alignment_offset": offsets.get(key, 0)} for key in wanted}
    run = functools.partial(
        run_all, build_piece, workers=workers, scheduler=None, progress=progress, what="tables written"
    )
    with StoreBuilder(store.path, INGEST, store.attributes) as builder:
        builder.forget_receipts()  # of an ingest that was interrupted: it will start again
        builder.begin(jobs)
        builder.build([job for job in jobs if job.array.name != EXPOSURE], run)
        builder.build([job for job in jobs if job.array.name == EXPOSURE], run)
        for key, attributes in groups.items():
            builder.write_group(store.path / key, attributes)
        stages = dict(store.attributes["stages"])
        ingested = stages.pop(INGEST)
        changed = builder.record({key: list(ingested["sequences"][key]) for key in wanted})["sequences"]
        record = ingested | {"sequences": ingested["sequences"] | changed}
        builder.commit(root, {INGEST: record}, store.attributes.get(OUTDATED, {}) | stages)
    return offsets


def _require_inside(key: str, sequence: Sequence, offset: int) -> None:
    length = sequence.spikes.shape[0]
    for frame, (start, stop) in zip(sequence.frames, sequence.exposure.tolist(), strict=True):
        if start + offset < 0 or stop + offset > length:
            raise AlignmentError(
                f"{key} frame {frame}: its exposure [{start}, {stop}), moved by {offset:+d} spike frames, would leave"
                f" the recording of {length}",
                f"set exposure.offset_frames: {offset} in the manifest, and ingest with --quarantine, which leaves out"
                " such frames",
            )


def _moved(sequence: Sequence, offset: int) -> Tables:
    rate_hz = Fraction(str(sequence.attributes["format"]["rate_hz"]))
    sharp = sequence.sharp_index
    return {
        "exposure": sequence.exposure + offset,
        "exposure_ns": sequence.exposure_ns + nanoseconds(offset, rate_hz),
        "sharp_index": np.where(sharp >= 0, sharp + offset, sharp),
    }


def _jobs(store: Store, sequence: Sequence, tables: Tables) -> list[ArrayJob]:
    """The arrays that depend on the exposures, planned as ingest plans them."""
    blurry, spikes = sequence.blurry, sequence.spikes
    width = sequence.spike_shape[1]
    if blurry is not None and not sequence.light:
        grey = _grey_job(store, sequence, blurry, tables)
        return [grey, *table_jobs(sequence.path, tables, None)]
    if blurry is None:
        return table_jobs(sequence.path, tables, None)
    inputs = spikes.attributes["inputs"], blurry.attributes["inputs"]
    return table_jobs(
        sequence.path, tables, Lit(places=(sequence.path,), width=width, scale=store.scale, inputs=inputs)
    )


def _grey_job(store: Store, sequence: Sequence, blurry: MappedArray, tables: Tables) -> ArrayJob:
    """Blurry frames made from the spikes, made anew from those in the store."""
    threshold = store.attributes["manifest"]["blurry_from_spikes"]
    spans = tuple((int(a), int(b)) for a, b in tables["exposure"])
    recorded = Recorded(sequence.spikes, sequence.spike_shape[1], store.scale)
    source = GreyFromSpikes(files=recorded, spans=spans, threshold=threshold, scale=store.scale)
    inputs, about = grey_facts(sequence.spikes.attributes["inputs"], spans, threshold)
    return image_job(blurry.layout, blurry.path, source, inputs, about)
