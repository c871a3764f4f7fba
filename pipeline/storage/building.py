"""Building the next generation of a store: one writer at a time, in pieces, resumed where it stopped.

What the current generation refers to is not touched. A stage builds its arrays in a tree of their own, shard by shard,
each with a receipt; a stage that is run again skips the shards whose receipt still fits. Replacing the root, which
names every node by its digest, is the one instant at which the new generation becomes the store. Then its nodes are
moved into place, and what they replace is kept aside while it is read. All of that can be done again after a crash,
by `generations.settle`.
"""

import contextlib
import hashlib
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.errors import StoreError
from pipeline.files import PARTIAL, make_durable, write_atomic
from pipeline.fingerprints import fingerprint_of
from pipeline.storage.generations import folders_with, hold_root, remove_empty, settle
from pipeline.storage.lock import has_stale_lock, lock_store
from pipeline.storage.mapped import forget_maps
from pipeline.storage.metadata import digest_of, read_metadata
from pipeline.storage.mirror import mirror_of
from pipeline.storage.nodes import BUILDING, Nodes
from pipeline.storage.pieces import BlockSource, Built, Piece
from pipeline.storage.plans import forget_plan
from pipeline.storage.publishing import publisher_of
from pipeline.storage.root import (
    GENERATION,
    WORK,
    Attributes,
    digests_of,
    encoded,
    group_metadata,
    read_root,
    root_metadata,
)
from pipeline.storage.shards import ArrayLayout

RECEIPTS = f"{WORK}/receipts"


@dataclass(frozen=True, kw_only=True)
class ArrayJob:
    """One array to build.

    Attributes:
        array: its place in the store.
        inputs: fingerprint of everything that determines its values.
        attributes: for its `zarr.json`.
        summarise: makes further attributes of the summaries of its pieces, in order.
        stored: if not, a group takes the array's place, which has the attributes and no values.
    """

    array: Path
    layout: ArrayLayout
    source: BlockSource
    inputs: str
    attributes: dict[str, Any] = field(default_factory=dict)
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda summaries: {}
    stored: bool = True

    @property
    def num_bytes(self) -> int:
        return math.prod(self.layout.shape) * np.dtype(self.layout.dtype).itemsize if self.stored else 0

    @property
    def num_shards(self) -> int:
        return math.prod(self.layout.grid)

    @property
    def key(self) -> str:
        """Fingerprint of values and layout, kept in the array's attributes as `inputs`."""
        return fingerprint_of([self.inputs, self._metadata(self.attributes)])

    def is_finished(self, nodes: Nodes) -> bool:
        """Is this very array in the store, complete?"""
        name = self.array.relative_to(nodes.store).as_posix()
        if name not in nodes:
            return False
        try:
            return bool(nodes.find_whole(name).attributes.get("inputs") == self.key)
        except StoreError:
            return False

    def metadata(self, built: Sequence[Built]) -> dict[str, Any]:
        """The array's or group's `zarr.json`, once all of its pieces are built."""
        summary = self.summarise([one.summary for one in built])
        attributes = self.attributes | summary | {"inputs": self.key}
        if self.stored:
            attributes["ledger"] = {one.receipt.key: [one.receipt.size, one.receipt.seal] for one in built}
        return self._metadata(attributes)

    def _metadata(self, attributes: Attributes) -> dict[str, Any]:
        return self.layout.metadata(attributes) if self.stored else group_metadata(attributes)


RunPieces = Callable[[Sequence[Piece]], list[Built]]


class StoreBuilder:
    """The one process that may change a store, for the time of a `with` block.

    Args:
        stage: the stage that is run.
        seen: the root's attributes, or None, from which the caller concluded what has to be done.

    Attributes:
        is_shared: whether others of its kind may be at work at the same time.

    Raises:
        StoreError: another process is writing, or has written since `seen`; a link in the store leads elsewhere.
    """

    is_shared = False

    def __init__(self, store: Path, stage: str, seen: Attributes | None) -> None:
        self.store = store
        self.stage = stage
        self._seen = seen
        self._digests = digests_of(seen, outdated=True)
        self._receipts = _receipts(store, stage)
        self._publisher = publisher_of(store)
        self._locks = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as locks:
            locks.enter_context(lock_store(self.store, shared=self.is_shared))
            locks.enter_context(self._publisher.locked())
            if read_root(self.store) != self._seen:
                raise StoreError(
                    f"{self.store}: another process changed it just now", "run the command again"
                )
            self._prepare(locks)
            self._locks = locks.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        forget_maps(self.store)
        self._locks.close()

    def _prepare(self, locks: contextlib.ExitStack) -> None:
        """What is to be done first, once the store is locked; `locks` are given back at the end."""
        if self._seen is not None:
            self._settle(self._seen)

    def begin(self, jobs: Iterable[ArrayJob]) -> None:
        """Make room for building `jobs`, and drop what an interrupted run of the stage built of other arrays.

        Parts that wait for `spk finalise` are no more: of what they built, this run takes what it can use.
        """
        forget_plan(self.store, self.stage)
        self._drop_built(except_of={self._name(job.array) for job in jobs})
        self._drop_partials()
        make_durable(self._receipts)

    def adopt(self, digests: Mapping[str, str]) -> None:
        """Take arrays into the next generation that others have built, by their names in the store.

        Raises:
            StoreError: one is missing or not whole.
        """
        self._drop_partials()
        self._digests |= digests
        nodes = Nodes(self.store, self._digests)
        for name in digests:
            nodes.find_whole(name)

    def build(self, jobs: Sequence[ArrayJob], run: RunPieces) -> list[Built]:
        """Build the arrays of `jobs`: their pieces, then their metadata.

        Args:
            run: calls `build_piece` on each piece; where and how many at a time is its business.
        """
        built = run([piece for job in jobs for piece in self.pieces(job)])
        _require_here(built)
        by_array: dict[Path, list[Built]] = {}
        for one in built:
            by_array.setdefault(one.piece.array, []).append(one)
        for job in jobs:
            array = self._building(job.array)
            _remove_strays(array, {one.receipt.key for one in by_array[array] if job.stored})
            self._stage(job.array, job.metadata(by_array[array]))
        return built

    def pieces(self, job: ArrayJob) -> list[Piece]:
        """The pieces of an array, to be built beside the store's content."""
        receipts = self._receipts / self._name(job.array)
        about = {"layout": job.layout, "source": job.source, "inputs": job.key, "stored": job.stored}
        array = self._building(job.array)
        return [Piece(array=array, shard=shard, receipts=receipts, **about) for shard in job.layout.shards()]

    def write_group(self, group: Path, attributes: Attributes) -> None:
        """Add a group below the root to the next generation."""
        self._stage(group, group_metadata(attributes))

    def attributes(self, node: Path) -> Attributes:
        """The attributes that a group or array has in the next generation, as far as that is built."""
        name = self._name(node)
        if (self.store / BUILDING / name / "zarr.json").is_file():
            return dict(read_metadata(self.store / BUILDING / name)["attributes"])
        return Nodes(self.store, self._digests).find(name).attributes

    def record(self, nodes: Mapping[str, Iterable[str]]) -> Attributes:
        """What the root is to keep of a finished stage: the digests of its nodes, for each sequence.

        Args:
            nodes: groups and arrays of the stage, by "split/sequence"; all relative to the store.
        """
        return {"sequences": {key: self.digests(names) for key, names in nodes.items()}}

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of nodes as the next generation has them."""
        return {name: self._digests[name] for name in names}

    def commit(
        self,
        attributes: Attributes,
        stages: dict[str, Attributes],
        outdated: dict[str, Attributes] | None = None,
    ) -> None:
        """Make what was built the store: with these stages finished, and others to be brought up to date."""
        generation = (self._seen or {}).get(GENERATION, 0)
        metadata = root_metadata(attributes, stages, outdated, generation)
        if metadata["attributes"] != self._seen:
            metadata = root_metadata(attributes, stages, outdated, generation + 1)
            if (
                digests_of(self._seen, outdated=True).items()
                - digests_of(metadata["attributes"], outdated=True).items()
            ):
                hold_root(self.store, self._seen or {})
        text = encoded(metadata)
        self._publisher.commit(text)
        if metadata["attributes"] != self._seen:
            write_atomic(self.store / "zarr.json", text)
        self._seen = metadata["attributes"]
        self._settle(self._seen)
        self.forget_receipts()

    def forget_receipts(self) -> None:
        """Build everything anew, even what an interrupted run finished."""
        self._drop_built()
        for _, group in list(folders_with("zarr.json", self.store / BUILDING)):
            if not (group / "c").is_dir():
                (group / "zarr.json").unlink()
        shutil.rmtree(self._receipts, ignore_errors=True)
        forget_plan(self.store, self.stage)
        remove_empty(self.store / WORK)

    def _settle(self, root: Attributes) -> None:
        settle(self.store, root)
        stages = (self.store / RECEIPTS).glob("*")
        self._publisher.settle(root, {name for stage in stages for name, _ in folders_with(".json", stage)})

    def _drop_partials(self) -> None:
        for partial in [*self.store.glob(f".*{PARTIAL}"), *(self.store / WORK).rglob(f".*{PARTIAL}")]:
            partial.unlink()

    def _drop_built(self, except_of: Collection[str] = ()) -> None:
        for name, receipts in list(folders_with(".json", self._receipts)):
            if name not in except_of:
                shutil.rmtree(self.store / BUILDING / name, ignore_errors=True)
                shutil.rmtree(receipts)

    def _name(self, node: Path) -> str:
        return node.relative_to(self.store).as_posix()

    def _building(self, node: Path) -> Path:
        return self.store / BUILDING / node.relative_to(self.store)

    def _stage(self, node: Path, metadata: dict[str, Any]) -> None:
        name, text = self._name(node), encoded(metadata)
        digest = hashlib.sha256(text.encode()).hexdigest()
        built = self.store / BUILDING / name
        is_in_place = metadata["node_type"] == "group" and digest_of(node) == digest
        if not is_in_place and digest_of(built) != digest:  # else an interrupted run came that far
            write_atomic(built / "zarr.json", text)
        self._digests[name] = digest


def was_interrupted(store: Path, stage: str) -> bool:
    """Did a run of the stage stop before its very end? Then it has left things to tidy up at least."""
    return _receipts(store, stage).is_dir() or has_stale_lock(store)


def _receipts(store: Path, stage: str) -> Path:
    return store / RECEIPTS / stage.replace("/", "-")


def _require_here(built: Iterable[Built]) -> None:
    """Refuse what a worker wrote on a disk of its own."""
    for one in built:
        if not one.piece.stored or mirror_of(one.piece.array) is not None:  # nothing is to be here
            continue
        shard = one.piece.array / one.receipt.key
        if not shard.is_file() or shard.stat().st_size != one.receipt.size:
            raise StoreError(
                f"{shard}: a worker wrote it, but it is not here",
                "all workers must see the store at the same path",
            )


def _remove_strays(array: Path, keys: set[str]) -> None:
    """Remove shards that a run with another layout left."""
    for stray in [file for file in (array / "c").rglob("*") if file.is_file()]:
        if stray.relative_to(array).as_posix() not in keys:
            stray.unlink()
