"""`spk verify`: is every file of a store as it was written? Nothing is changed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.reports import Progress, no_progress
from pipeline.storage.checking import shard_problem
from pipeline.storage.fetching import checked_folder
from pipeline.storage.mapped import MappedArray
from pipeline.storage.metadata import metadata_bytes
from pipeline.storage.nodes import Nodes
from pipeline.storage.places import shown
from pipeline.storage.root import (
    WORK,
    digests_of,
    encoded,
    group_metadata,
    read_root,
    read_root_at,
)
from pipeline.tasks import run_all

ROOT = "zarr.json"
COPY = f"{WORK}/zarr.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A file that is missing, or not as it was written.

    Attributes:
        path: of the file, below the store.
        problem: what is wrong with it.
        node: the group or array that it belongs to; "" for the root.
    """

    path: str
    problem: str
    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What a check of a store found.

    Attributes:
        checked: files.
    """

    store: Path
    deep: bool
    checked: int
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        damaged = [{"path": one.path, "problem": one.problem} for one in self.damaged]
        return {
            "store": shown(self.store),
            "ok": self.ok,
            "deep": self.deep,
            "checked": self.checked,
            "damaged": damaged,
        }


def verify(
    store: Path,
    *,
    deep: bool = False,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> Verified:
    """Check all files of a store: metadata by digests, shards by size, with `deep` by the checksums of every byte.

    Raises:
        StoreError: there is no store, or neither its root nor the copy of that can be read.
    """
    with checked_folder(store) as folder:
        run = functools.partial(
            run_all, workers=workers, scheduler=scheduler, progress=progress, what="nodes checked"
        )
        return _verify(Path(store), folder, deep, run)


def _verify(place: Path, store: Path, deep: bool, run: Callable[..., list[Any]]) -> Verified:
    root, damaged = _root(store)
    nodes = Nodes(store, digests_of(root, outdated=True))
    check = functools.partial(_check_node, nodes, deep=deep)
    names = sorted(nodes.digests)
    found = run(check, names)
    for _, damage in found:
        damaged += damage
    total = 2 + sum(checked for checked, _ in found)
    return Verified(store=place, deep=deep, checked=total, damaged=tuple(damaged))


def _root(store: Path) -> tuple[dict[str, Any], list[Damage]]:
    """The root's attributes, from its copy if need be, and what is wrong with either."""
    try:
        root = read_root(store)
    except StoreError as error:
        if not (store / COPY).is_file():
            raise
        return read_root_at(store / WORK), [Damage(path=ROOT, problem=_short(store, error), node="")]
    if root is None:
        raise StoreError(f"{store}: no store here", f"spk ingest RAW -o {store} --manifest NAME")
    text = encoded(group_metadata(root)).encode()
    if metadata_bytes(store) != text:  # white space, of which no checksum knows
        return root, [Damage(path=ROOT, problem="changed since spk wrote it", node="")]
    try:
        if metadata_bytes(store / WORK) == text:
            return root, []
        problem = "not the same as the root, of which it is the copy"
    except StoreError as error:
        problem = _short(store, error)
    return root, [Damage(path=COPY, problem=problem, node="")]


def _check_node(nodes: Nodes, name: str, *, deep: bool) -> tuple[int, list[Damage]]:
    """How many files a node has, and those that are damaged."""
    file = f"{name}/zarr.json"
    try:
        node = nodes.find(name)
        if node.metadata.get("node_type") != "array":
            return 1, []
        array = MappedArray(nodes.store / name, node)
    except StoreError as error:
        return 1, [Damage(path=file, problem=_short(nodes.store, error), node=name)]
    damaged = []
    for receipt in array.receipts.values():
        found = shard_problem(node.path / receipt.key, array.layout, receipt, deep=deep)
        if found is not None:
            damaged.append(Damage(path=f"{name}/{receipt.key}", problem=found, node=name))
    return 1 + len(array.receipts), damaged


def _short(store: Path, error: StoreError) -> str:
    """The problem without the path of the store, which a report says once."""
    return error.problem.replace(f"{store}/", "")
