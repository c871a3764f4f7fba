"""`spk finalise`: parts of a stage that were built one by one, made the store."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pipeline.ingest
import pipeline.voxelize
from pipeline.errors import StoreError
from pipeline.reports import StageReport
from pipeline.storage.building import StoreBuilder
from pipeline.storage.nodes import Nodes
from pipeline.storage.plans import (
    BuiltSequence,
    Part,
    PartRecord,
    Plan,
    read_plans,
    read_record,
)
from pipeline.storage.root import INGEST, OFFSETS, Attributes, read_root
from pipeline.store import open_store
from pipeline.virtual_voxels import VIRTUAL

MAX_LISTED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalised:
    """A stage whose parts were merged: how many they were, and the report on all of them."""

    stage: str
    parts: int
    report: StageReport

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return {"stage": self.stage, "parts": self.parts} | self.report.to_json()


def finalise(store: Path, *, dry_run: bool = False) -> tuple[Finalised, ...]:
    """Make the parts that wait in `store` part of it, a stage at a time, as if one process had built them.

    Nothing is read but metadata, and the sizes and times of the recordings, which must be those that were built.

    Args:
        dry_run: only see whether everything is there.

    Raises:
        StoreError: parts are missing, or not whole, or of something that has changed meanwhile; another process is
            writing; there is no store and nothing to make one of. Nothing is changed then.
        AlignmentError, FormatError: the recordings, all together, do not make a store.
    """
    store = Path(store)
    plans = read_plans(store)
    if not plans and read_root(store) is None:
        raise StoreError(
            f"{store}: no store, and no part of one", "build its parts: spk ingest … --parts 1/3"
        )
    checked = [(plan, _collect(store, plan, read_root(store))) for plan in plans]
    return tuple(_finalise(store, plan, parts, dry_run=dry_run) for plan, parts in checked)


def drop(store: Path) -> tuple[str, ...]:
    """Delete what parts have built and nobody has merged; returns the stages.

    Raises:
        StoreError: another process is writing.
    """
    store, stages = Path(store), [plan.stage for plan in read_plans(Path(store))]
    for stage in stages:
        with StoreBuilder(store, stage, read_root(store)) as builder:
            builder.forget_receipts()
    return tuple(stages)


def _finalise(store: Path, plan: Plan, parts: Mapping[Part, PartRecord], *, dry_run: bool) -> Finalised:
    started = time.monotonic()
    seen = read_root(store)
    sequences = _in_order(plan, parts)
    if not dry_run:
        with StoreBuilder(store, plan.stage, seen) as builder:
            parts = _collect(store, plan, seen)  # as they are now, under the lock
            sequences = _in_order(plan, parts)
            builder.adopt({name: digest for one in sequences.values() for name, digest in one.arrays.items()})
            _commit(builder, plan, sequences, seen)
        if plan.stage == INGEST:
            pipeline.ingest.tell(store, [key for key, one in sequences.items() if one.is_new])
    records = parts.values()
    report = StageReport(
        store=store,
        sequences=len(sequences),
        frames=sum(one.frames for one in sequences.values()),
        written=sum(one.written for one in records),
        skipped=sum(one.skipped for one in records),
        num_bytes=sum(one.num_bytes for one in records),
        quarantined=tuple(problem for one in records for problem in one.quarantined),
        seconds=time.monotonic() - started,
    )
    return Finalised(stage=plan.stage, parts=plan.count, report=report)


def _commit(
    builder: StoreBuilder, plan: Plan, sequences: Mapping[str, BuiltSequence], seen: Attributes | None
) -> None:
    settings = plan.settings
    if plan.stage == INGEST:
        groups = {key: one.group for key, one in sequences.items()}
        pipeline.ingest.commit(builder, seen, _root(plan, sequences), groups)
    else:
        names = [name for name in ("num_bins", "rule", "codec", VIRTUAL) if name in settings]
        opened = open_store(builder.store, check=False, hold=False)
        pipeline.voxelize.commit(builder, opened, {name: settings[name] for name in names})


def _root(plan: Plan, sequences: Mapping[str, BuiltSequence]) -> Attributes:
    scales = {key: one.scale for key, one in sequences.items() if one.scale is not None}
    return pipeline.ingest.root_attributes(plan.settings, scales)


def _in_order(plan: Plan, parts: Mapping[Part, PartRecord]) -> dict[str, BuiltSequence]:
    """All sequences as one process would have come to them; those of which no frame was usable are not there."""
    found = {key: one for record in parts.values() for key, one in record.sequences.items()}
    return {key: found[key] for key in plan.sequences if key in found}


def _collect(store: Path, plan: Plan, seen: Attributes | None) -> dict[Part, PartRecord]:
    """What all parts have built.

    Raises:
        StoreError: some have not, or it is not there, or no longer what would be built.
    """
    _require_current(store, plan, seen)
    parts, missing = {}, list[tuple[Part, str]]()
    for part in plan.parts:
        share = part.share(plan.sequences)
        record = read_record(store, plan.stage, part)
        if record is None:
            missing.append((part, f"is not built: {_some(share)}" if share else "is not built"))
        elif broken := [p for key, one in record.sequences.items() if (p := _problem(store, plan, key, one))]:
            missing.append((part, f"has to be built again: {broken[0]}"))
        else:
            parts[part] = record
    if missing:
        lines = [f"part {part} {why}" for part, why in missing[:MAX_LISTED]]
        more = [f"and {len(missing) - MAX_LISTED} more"] if len(missing) > MAX_LISTED else []
        again = [str(part) for part, _ in missing]
        raise StoreError(
            "\n".join([f"{store}: {plan.stage} cannot be finished yet", *lines, *more]),
            f"{_command(store, plan)} --parts {again[0]}"
            + (f", and so on for {_some(again[1:])}" if again[1:] else ""),
        )
    if plan.stage == INGEST:
        sequences = _in_order(plan, parts)
        if not sequences:
            problems = [problem for record in parts.values() for problem in record.quarantined]
            raise pipeline.ingest.nothing_usable(Path(plan.settings["provenance"]["raw"]), problems)
        _root(plan, sequences)
    return parts


def _require_current(store: Path, plan: Plan, seen: Attributes | None) -> None:
    """Refuse parts that were built from what the store no longer holds."""
    if plan.stage == INGEST:
        is_current = (seen or {}).get(OFFSETS, {}) == plan.settings[OFFSETS]
    else:
        ingested = pipeline.voxelize.ingested(open_store(store, check=False, hold=False))
        is_current = ingested == plan.settings["recordings"]
    if not is_current:
        raise StoreError(
            f"{store}: changed since parts of {plan.stage} were built from it",
            f"drop them, and build them again: spk finalise {quote(str(store))} --drop",
        )


def _problem(store: Path, plan: Plan, key: str, one: BuiltSequence) -> str:
    """What is wrong with a sequence that was built; empty if nothing is."""
    nodes = Nodes(store, one.arrays)
    try:
        for name in one.arrays:
            nodes.find_whole(name)
    except StoreError as error:
        return error.problem
    if plan.stage == INGEST:
        raw = Path(plan.settings["provenance"]["raw"])
        for name, size, changed_ns in one.group["sources"]:
            try:
                state = (raw / name).stat()
            except OSError as error:
                return f"{raw / name}: {error.strerror}"
            if (state.st_size, state.st_mtime_ns) != (size, changed_ns):
                return f"{raw / name} has changed since {key} was built"
    return ""


def _command(store: Path, plan: Plan) -> str:
    settings, place = plan.settings, quote(str(store))
    if plan.stage == INGEST:
        raw = quote(settings["provenance"]["raw"])
        return f"with the options of the other parts, spk ingest {raw} -o {place} -m …"
    options = f"--bins {settings['num_bins']} --name {settings['name']} --codec {settings['codec']}"
    flags = [f" --{name}" for name in (VIRTUAL, "overwrite") if settings.get(name)]
    return f"spk voxelize {place} {options}{''.join(flags)}"


def _some(names: Any) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
