"""Building a store: one writer at a time, in pieces that are whole or absent, resumed where it stopped.

A *piece* is one shard. Its bytes are written and fsynced, then a receipt beside the store's content says so; a stage
that is run again skips the pieces whose receipt still fits. An array's metadata is taken away before, and written after
all pieces are there; the root's `stages` last: until then readers refuse the store.
"""

import contextlib
import fcntl
import math
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.files import PARTIAL
from pipeline.fingerprints import fingerprint_of
from pipeline.storage.mapped import forget_maps
from pipeline.storage.metadata import check_sizes, read_metadata
from pipeline.storage.pieces import BlockSource, Built, Piece
from pipeline.storage.root import WORK, Attributes, read_root, write_group, write_node, write_root
from pipeline.storage.shards import ArrayLayout


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
            metadata = read_metadata(self.array)
            check_sizes(self.array, metadata)
        except StoreError:
            return False
        return bool(metadata["attributes"].get("inputs") == self.key)


RunPieces = Callable[[Sequence[Piece]], list[Built]]


class StoreBuilder:
    """The one process that may change a store, for the time of a `with` block.

    Args:
        stage: the stage that is run.
        seen: the root's attributes, or None, from which the caller concluded what has to be done.

    Raises:
        StoreError: another process is writing, or has written since `seen`; a link in the store leads elsewhere.
    """

    def __init__(self, store: Path, stage: str, seen: Attributes | None) -> None:
        self.store = store
        self.stage = stage
        self._seen = seen
        self._receipts = _receipts(store, stage)
        self._lock: int | None = None

    def __enter__(self) -> "StoreBuilder":
        _refuse_links(self.store)
        self._lock = _lock(self.store / WORK / "lock", self.store)
        try:
            if read_root(self.store) != self._seen:
                raise StoreError(
                    f"{self.store}: another process changed it just now", "run the command again"
                )
        except BaseException:
            self._release()
            raise
        forget_maps(self.store)
        return self

    def __exit__(self, *exception: object) -> None:
        self._release()

    def begin(self, attributes: Attributes, stages: dict[str, Attributes]) -> None:
        """Leave only these `stages` in the root, so that readers refuse what is about to change."""
        assert self.stage not in stages
        if self._receipts.is_dir():  # an earlier run was interrupted
            for partial in self.store.rglob(f".*{PARTIAL}"):
                partial.unlink()
        self._receipts.mkdir(parents=True, exist_ok=True)
        write_root(self.store, attributes, stages)

    def build(self, jobs: Sequence[ArrayJob], run: RunPieces) -> list[Built]:
        """Build the arrays of `jobs`: their pieces, then their metadata.

        Args:
            run: calls `build_piece` on each piece; where and how many at a time is its business.
        """
        for job in jobs:
            (job.array / "zarr.json").unlink(missing_ok=True)
        built = run([piece for job in jobs for piece in self._pieces(job)])
        by_array: dict[Path, list[Built]] = {}
        for one in built:
            by_array.setdefault(one.piece.array, []).append(one)
        for job in jobs:
            _finish_array(job, by_array[job.array])
        return built

    def write_group(self, group: Path, attributes: Attributes) -> None:
        """Write the metadata of a group below the root."""
        write_group(group, attributes)

    def commit(self, attributes: Attributes, stages: dict[str, Attributes]) -> None:
        """Record the finished stages in the root's metadata, last of all, and drop the receipts."""
        write_root(self.store, attributes, stages)
        self.forget_receipts()

    def forget_receipts(self) -> None:
        """Build everything anew, even what an interrupted run finished."""
        shutil.rmtree(self._receipts, ignore_errors=True)

    def _pieces(self, job: ArrayJob) -> list[Piece]:
        name = job.array.relative_to(self.store).as_posix().replace("/", "--")
        common = {"array": job.array, "layout": job.layout, "source": job.source, "inputs": job.key}
        return [Piece(shard=s, receipts=self._receipts / name, **common) for s in job.layout.shards()]

    def _release(self) -> None:
        assert self._lock is not None
        forget_maps(self.store)
        with contextlib.suppress(OSError):  # the directory stays when receipts are needed to resume
            if not any(path.name != "lock" for path in (self.store / WORK).iterdir()):
                shutil.rmtree(self.store / WORK)
        os.close(self._lock)
        self._lock = None


def was_interrupted(store: Path, stage: str) -> bool:
    """Did a run of the stage stop before its very end? Then it has left things to tidy up at least."""
    return _receipts(store, stage).is_dir()


def _receipts(store: Path, stage: str) -> Path:
    return store / WORK / stage.replace("/", "-")


def _finish_array(job: ArrayJob, built: Sequence[Built]) -> None:
    ledger = {one.receipt.key: [one.receipt.size, one.receipt.seal] for one in built}
    for stray in [file for file in (job.array / "c").rglob("*") if file.is_file()]:
        if stray.relative_to(job.array).as_posix() not in ledger:
            stray.unlink()
    summary = job.summarise([one.summary for one in built])
    attributes = job.attributes | summary | {"inputs": job.key, "ledger": ledger}
    write_node(job.array, job.layout.metadata(attributes))


def _refuse_links(folder: Path) -> None:
    """Refuse to write where a link would take the bytes out of the store, or a pipe would swallow them."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            with contextlib.suppress(FileNotFoundError):  # another process is at work, and the lock will tell
                if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                    raise StoreError(
                        f"{path}: a link or special file in a store", "remove it, and build again"
                    )


MOST_ATTEMPTS = 1000


def _lock(path: Path, store: Path) -> int:
    """Take the store's lock, or say who holds it. The kernel lets go of it when its owner dies, however it dies."""
    attempts = (_try_lock(path, store) for _ in range(MOST_ATTEMPTS))
    descriptor = next((taken for taken in attempts if taken is not None), None)
    if descriptor is None:
        raise StoreError(f"{path}: cannot be made, or comes and goes", "look what is at that path")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:2000]
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {command}".encode(), 0)
    return descriptor


def _try_lock(path: Path, store: Path) -> int | None:
    """The lock's descriptor; None where an owner before us finished, and took file or folder away meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileNotFoundError, FileExistsError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except FileNotFoundError:
        pass
    except BlockingIOError:
        owner = os.pread(descriptor, 4096, 0).decode(errors="replace") or "it does not say who"
        os.close(descriptor)
        raise StoreError(f"{store}: another process is writing: {owner}", "wait for it, or stop it") from None
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
