"""`spk repair`: what is damaged in a store, built again from the recordings and from what is whole.

Nothing but the very bytes that were lost is put in: every shard must have the size and the seal that the ledger says,
every `zarr.json` the digest that the root says.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import build
from pipeline.errors import SpkError, StoreError
from pipeline.examine import examine_recording
from pipeline.files import write_atomic
from pipeline.manifest import Manifest
from pipeline.recordings import find_recordings
from pipeline.reports import Progress, no_progress
from pipeline.sequence_jobs import sequence_jobs
from pipeline.stats import stats_attributes
from pipeline.storage.building import ArrayJob, was_interrupted
from pipeline.storage.checking import shard_problem
from pipeline.storage.fetching import working_folder
from pipeline.storage.lock import lock_store
from pipeline.storage.mapped import MappedArray, forget_maps
from pipeline.storage.metadata import metadata_bytes
from pipeline.storage.mirror import move_shard, remove_tree, write_metadata
from pipeline.storage.nodes import Nodes
from pipeline.storage.pieces import Built, Piece, build_piece
from pipeline.storage.places import shown
from pipeline.storage.publishing import publisher_of
from pipeline.storage.root import (
    INGEST,
    OFFSETS,
    STATS,
    VOXELIZE,
    WORK,
    Attributes,
    digests_of,
    encoded,
    group_metadata,
    read_root,
)
from pipeline.storage.shards import ArrayLayout, Index, shard_key
from pipeline.store import Store, open_store
from pipeline.tables import EXPOSURE
from pipeline.tasks import run_all
from pipeline.verify import COPY, ROOT, Damage, verify
from pipeline.virtual_voxels import VIRTUAL
from pipeline.voxel_jobs import TRAIN, train_histogram, voxel_job

REPAIRING = f"{WORK}/repair"
CHANGED = "what it is built from has changed since: that gives other bytes than those that were stored"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        repaired: files that are again as they were written, below the store.
        left: files that are still damaged, each with the reason.
    """

    store: Path
    repaired: tuple[str, ...]
    left: tuple[Damage, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        left = [{"path": one.path, "problem": one.problem} for one in self.left]
        return {"store": shown(self.store), "ok": not left, "repaired": list(self.repaired), "damaged": left}


def repair(
    store: Path, raw: Path | None = None, *, workers: int = 2, progress: Progress = no_progress
) -> Repaired:
    """Check every byte of a store, and build what is damaged again.

    Args:
        raw: where the recordings are; without it, where they were when they were ingested.

    Raises:
        StoreError: there is no store, its root and the copy of that are both damaged, a stage was interrupted, or
            another process is writing.
    """
    place, store = Path(store), working_folder(store, anew=True)
    with lock_store(store), publisher_of(store).locked():
        before = verify(store, deep=True, workers=workers, progress=progress)
        if before.ok:
            return Repaired(store=place, repaired=(), left=())
        _repair_root(store, before.damaged)
        root = read_root(store)
        assert root is not None
        if was_interrupted(store, INGEST):
            raise StoreError(
                f"{store}: a run of spk ingest was interrupted", "run the same spk ingest command again first"
            )
        try:
            problems = _Repair(store, root, raw, workers, progress).run(before.damaged)
        finally:
            remove_tree(store / REPAIRING)
            forget_maps(store)
    after = verify(place, deep=True, workers=workers, progress=progress)
    left = tuple(_with_reason(one, problems.get(one.node)) for one in after.damaged)
    damaged = {one.path for one in after.damaged}
    repaired = tuple(one.path for one in before.damaged if one.path not in damaged)
    return Repaired(store=place, repaired=repaired, left=left)


def _with_reason(damage: Damage, reason: str | None) -> Damage:
    return dataclasses.replace(damage, problem=f"{damage.problem}; {reason}") if reason else damage


def _repair_root(store: Path, damaged: Iterable[Damage]) -> None:
    """Make the root and its copy the same again, from the one of them that is whole."""
    paths = {one.path for one in damaged}
    if ROOT in paths:
        write_atomic(store / ROOT, metadata_bytes(store / WORK))
    elif COPY in paths:
        write_atomic(store / COPY, metadata_bytes(store))


class _Repair:
    """Building damaged nodes again, each after those that it is built from."""

    def __init__(
        self, store: Path, root: Attributes, raw: Path | None, workers: int, progress: Progress
    ) -> None:
        self.store = store
        self.root = root
        self.raw = Path(root["provenance"]["raw"]) if raw is None else Path(raw)
        self.nodes = Nodes(store, digests_of(root, outdated=True))
        self._run = functools.partial(
            run_all, build_piece, workers=workers, scheduler=None, progress=progress, what="shards rebuilt"
        )
        self._jobs: dict[str, ArrayJob] = {}
        self._groups: dict[str, Attributes] = {split: {} for split in root["splits"]}
        self._problems: dict[str, str] = {}

    def run(self, damaged: Iterable[Damage]) -> dict[str, str]:
        """Repair what can be; returns why the others cannot, by node."""
        nodes = {one.node for one in damaged if one.node}
        ingested = nodes & digests_of({"stages": {INGEST: self.root["stages"][INGEST]}}).keys()
        exposures = {node for node in ingested if node.endswith(f"/{EXPOSURE}")}
        with self._noting(ingested):
            self._plan_ingest({"/".join(node.split("/")[:2]) for node in ingested if "/" in node})
        self._mend(ingested - exposures)
        self._mend(exposures)
        for stage, record in self.root["stages"].items():
            if stage.startswith(VOXELIZE):
                self._mend_voxels(stage.removeprefix(VOXELIZE), record, nodes)
        return self._problems

    def _mend_voxels(self, name: str, record: Mapping[str, Any], nodes: set[str]) -> None:
        grids = nodes & digests_of({"stages": {"": {"sequences": record["sequences"]}}}).keys()
        with self._noting(grids):
            self._plan_voxels(name, record, grids)
        self._mend(grids)
        statistics = nodes & record.get(STATS, {}).keys()
        with self._noting(statistics):
            self._plan_statistics(name, record)
        self._mend(statistics)

    @contextlib.contextmanager
    def _noting(self, nodes: Iterable[str]) -> Iterator[None]:
        """Note for these nodes why they cannot be built."""
        try:
            yield
        except SpkError as error:
            self._problems |= dict.fromkeys(nodes, f"it cannot be built again: {error.problem}")

    def _mend(self, nodes: Iterable[str]) -> None:
        for node in sorted(nodes):
            with self._noting([node]):
                if node in self._groups:
                    self._write_metadata(node, group_metadata(self._groups[node]))
                elif node in self._jobs and self._jobs[node].stored:
                    self._mend_array(node, self._jobs[node])
                elif node in self._jobs:
                    self._mend_metadata(node, self._jobs[node])

    def _plan_ingest(self, keys: set[str]) -> None:
        if not keys:
            return
        manifest = build(Manifest, self.root["manifest"], f"the manifest in {self.store}")
        offsets = self.root.get(OFFSETS, {})
        for recording in find_recordings(manifest, self.raw, quarantine=True):
            if recording.key not in keys:
                continue
            examined, _ = examine_recording(recording, manifest, offsets, quarantine=True)
            if examined is None:
                continue
            planned = sequence_jobs(self.raw, self.store, examined, manifest, self.root.get("codec", "none"))
            self._jobs |= {f"{planned.key}/{job.array.name}": job for job in planned.jobs}
            self._groups[planned.key] = planned.attributes()

    def _plan_voxels(self, name: str, record: Mapping[str, Any], nodes: Collection[str]) -> None:
        if not nodes:
            return
        store = self._opened()
        parameters = record["parameters"]
        for node in nodes:
            split, sequence, *rest = node.split("/")
            if rest == ["voxels"]:
                self._groups[node] = {}
            else:
                opened = store.sequence(split, sequence)
                codec = parameters.get("codec", "none")
                virtual = parameters.get(VIRTUAL, False)
                self._jobs[node] = voxel_job(
                    store, opened, parameters["num_bins"], name, codec, virtual=virtual
                )

    def _plan_statistics(self, name: str, record: Mapping[str, Any]) -> None:
        if STATS in record:
            num_bins = record["parameters"]["num_bins"]
            histogram = train_histogram(self._opened(), name, self._attributes)
            self._groups[STATS] = {}
            self._groups[f"{STATS}/{name}"] = stats_attributes(histogram, num_bins=num_bins, split=TRAIN)

    def _attributes(self, array: Path) -> Attributes:
        return self.nodes.find(array.relative_to(self.store).as_posix()).attributes

    def _opened(self) -> Store:
        return open_store(self.store, check=False, hold=False)

    def _mend_array(self, name: str, job: ArrayJob) -> None:
        try:
            node = self.nodes.find(name)
            array = MappedArray(self.store / name, node)
        except StoreError:  # with the metadata gone, all shards have to tell what was in it
            self._mend_metadata(name, job)
            node = self.nodes.find(name)
            array = MappedArray(self.store / name, node)
        damaged = [
            shard
            for shard in array.layout.shards()
            if shard_problem(
                node.path / shard_key(shard), array.layout, array.receipts[shard_key(shard)], deep=True
            )
        ]
        for one in self._build(name, job, array.layout, damaged):
            if array.receipts[one.receipt.key] != one.receipt:
                raise StoreError(CHANGED)
            move_shard(one.piece.array / one.receipt.key, node.path / one.receipt.key)

    def _mend_metadata(self, name: str, job: ArrayJob) -> None:
        built = self._build(name, job, job.layout, list(job.layout.shards()))
        self._write_metadata(name, job.metadata(built))

    def _build(self, name: str, job: ArrayJob, layout: ArrayLayout, shards: list[Index]) -> list[Built]:
        folder = self.store / REPAIRING / name
        about = {"layout": layout, "source": job.source, "inputs": job.key, "stored": job.stored}
        receipts = folder / "receipts"
        return self._run([Piece(array=folder, shard=shard, receipts=receipts, **about) for shard in shards])

    def _write_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        text = encoded(metadata)
        if hashlib.sha256(text.encode()).hexdigest() != self.nodes.digests[name]:
            raise StoreError(CHANGED)
        write_metadata(self.store / name / "zarr.json", text)
