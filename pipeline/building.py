"""Building a store: one writer at a time, in pieces that are whole or absent, resumed where it stopped.

A *piece* is one shard. Its bytes are written and fsynced, then a receipt beside the store's content says so; a stage
that is run again skips the pieces whose receipt still fits. Metadata follows when all pieces of an array are there,
and the root's `stages` last: until then readers refuse the store.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.files import write_atomic
from pipeline.mapped import forget_maps, read_metadata
from pipeline.shards import ArrayLayout, Index, Receipt, shard_path, write_shard
from pipeline.store import check_sizes

WORK = ".spk"
"""Directory inside a store, there only while a stage runs or after it was interrupted: lock and receipts."""

Region = tuple[slice, ...]


class BlockSource(Protocol):
    """Where a piece's values come from. Sent to workers, so it holds paths, never data."""

    def block(self, region: Region) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """The values of a region of the array, and a JSON summary of them for whoever assembles the array."""
        ...


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One shard to build: where it goes, how it is laid out, where its values come from.

    Attributes:
        inputs: fingerprint of everything that determines the values; a receipt with another one is void.
    """

    array: Path
    layout: ArrayLayout
    shard: Index
    source: BlockSource
    inputs: str
    receipts: Path

    @property
    def receipt_path(self) -> Path:
        return self.receipts / f"{'-'.join(map(str, self.shard))}.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A piece that is on disk, and whether this run had to write it."""

    piece: Piece
    receipt: Receipt
    summary: dict[str, Any] = field(default_factory=dict)
    written: bool


def build_piece(piece: Piece) -> Built:
    """Write one shard and its receipt, unless a receipt shows that it is there already."""
    if (earlier := _earlier(piece)) is not None:
        return earlier
    values, summary = piece.source.block(piece.layout.region(piece.shard))
    receipt = write_shard(piece.array, piece.layout, piece.shard, values)
    note = {"inputs": piece.inputs, "size": receipt.size, "crc32c": receipt.crc32c, "summary": summary}
    write_atomic(piece.receipt_path, json.dumps(note))
    return Built(piece=piece, receipt=receipt, summary=summary, written=True)


def _earlier(piece: Piece) -> Built | None:
    path = shard_path(piece.array, piece.shard)
    try:
        note = json.loads(piece.receipt_path.read_bytes())
        if note["inputs"] != piece.inputs or path.stat().st_size != note["size"]:
            return None
        receipt = Receipt(path.relative_to(piece.array).as_posix(), note["size"], note["crc32c"])
        return Built(piece=piece, receipt=receipt, summary=note["summary"], written=False)
    except (OSError, ValueError, KeyError):
        return None  # no receipt, or one cut short: the piece is built again


@dataclass(frozen=True, kw_only=True)
class ArrayJob:
    """One array to build.

    Attributes:
        inputs: fingerprint of everything that determines its values.
        attributes: for its `zarr.json`.
        summarise: makes further attributes of the summaries of its pieces, in order.
    """

    array: Path
    layout: ArrayLayout
    source: BlockSource
    inputs: str
    attributes: dict[str, Any] = field(default_factory=dict)
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda summaries: {}

    @property
    def num_bytes(self) -> int:
        return math.prod(self.layout.shape) * np.dtype(self.layout.dtype).itemsize

    @property
    def num_shards(self) -> int:
        return math.prod(self.layout.grid)

    @property
    def key(self) -> str:
        """Fingerprint of values and layout, kept in the array's attributes as `inputs`."""
        return fingerprint_of([self.inputs, self.layout.metadata(self.attributes)])

    def is_finished(self) -> bool:
        """Is this very array on disk, complete?"""
        try:
            attributes = read_metadata(self.array)["attributes"]
            check_sizes(self.array)
        except StoreError:
            return False
        return bool(attributes.get("inputs") == self.key)


class StoreBuilder:
    """The one process that may change a store, for the time of a `with` block."""

    def __init__(self, store: Path, stage: str) -> None:
        self.store = store
        self.stage = stage
        self.receipts = store / WORK / stage.replace("/", "-")
        self._lock: int | None = None

    def __enter__(self) -> "StoreBuilder":
        self._lock = _lock(self.store / WORK / "lock", self.store)
        forget_maps(self.store)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._lock is not None
        forget_maps(self.store)
        with contextlib.suppress(OSError):  # the directory stays when receipts are needed to resume
            if not any(path.name != "lock" for path in (self.store / WORK).iterdir()):
                shutil.rmtree(self.store / WORK)
        os.close(self._lock)

    def build(self, jobs: Sequence[ArrayJob], run: Callable[[Sequence[Piece]], list[Built]]) -> list[Built]:
        """Build the arrays of `jobs`: their pieces, then their metadata.

        Args:
            run: calls `build_piece` on each piece; where and how many at a time is its business.
        """
        built = run([piece for job in jobs for piece in self._pieces(job)])
        by_array: dict[Path, list[Built]] = {}
        for one in built:
            by_array.setdefault(one.piece.array, []).append(one)
        for job in jobs:
            self._finish_array(job, by_array[job.array])
        return built

    def write_group(self, group: Path, attributes: dict[str, Any]) -> None:
        """Write the metadata of a group."""
        _write_node(group, {"zarr_format": 3, "node_type": "group", "attributes": attributes})

    def begin(self, outdated: Iterable[str]) -> None:
        """Take this stage, and stages that build on it, out of the root's record: readers refuse the store now."""
        if (self.store / "zarr.json").is_file():
            attributes = read_metadata(self.store)["attributes"]
            gone = {self.stage, *outdated}
            stages = {name: record for name, record in attributes["stages"].items() if name not in gone}
            self.write_group(self.store, attributes | {"stages": stages})

    def commit(self, attributes: dict[str, Any], record: dict[str, Any]) -> None:
        """Record the stage as finished in the root's metadata, last of all, and drop the receipts."""
        stages = attributes.get("stages", {}) | {self.stage: record}
        fingerprint = fingerprint_of([attributes["splits"], stages])
        self.write_group(self.store, attributes | {"stages": stages, "fingerprint": fingerprint})
        shutil.rmtree(self.receipts, ignore_errors=True)

    def forget_receipts(self) -> None:
        """Build everything anew, even what an interrupted run finished."""
        shutil.rmtree(self.receipts, ignore_errors=True)

    def _pieces(self, job: ArrayJob) -> list[Piece]:
        name = job.array.relative_to(self.store).as_posix().replace("/", "--")
        common = {"array": job.array, "layout": job.layout, "source": job.source, "inputs": job.key}
        return [Piece(shard=s, receipts=self.receipts / name, **common) for s in job.layout.shards()]

    def _finish_array(self, job: ArrayJob, built: list[Built]) -> None:
        ledger = {one.receipt.key: [one.receipt.size, one.receipt.crc32c] for one in built}
        for stray in [file for file in (job.array / "c").rglob("*") if file.is_file()]:
            if stray.relative_to(job.array).as_posix() not in ledger:
                stray.unlink()
        summary = job.summarise([one.summary for one in built])
        attributes = job.attributes | summary | {"inputs": job.key, "ledger": ledger}
        _write_node(job.array, job.layout.metadata(attributes))


def _write_node(node: Path, metadata: dict[str, Any]) -> None:
    write_atomic(node / "zarr.json", json.dumps(metadata, indent=1) + "\n")


def _lock(path: Path, store: Path) -> int:
    """Take the store's lock, or say who holds it. The kernel lets go of it when its owner dies, however it dies."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        except FileNotFoundError:
            pass  # the owner before us finished and took the file away between our two calls
        except OSError:
            owner = os.read(descriptor, 4096).decode(errors="replace")
            os.close(descriptor)
            raise StoreError(
                f"{store}: another process is writing: {owner}", "wait for it, or stop it"
            ) from None
        os.close(descriptor)
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:2000]
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {command}".encode())
    return descriptor


def fingerprint_of(value: Any) -> str:
    """SHA-256 of a JSON value, however its mappings are ordered."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.integer):
        return int(value)
    return str(value)
