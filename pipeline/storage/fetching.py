"""Metadata of a store in an object store, fetched to a local folder that is then read, or built on, like a store."""

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import StoreError, UsageError
from pipeline.files import write_atomic
from pipeline.storage.lock import lock_store
from pipeline.storage.metadata import digest_of, metadata_bytes
from pipeline.storage.mirror import (
    BUILDING,
    REBUILT,
    WORKING,
    Mirror,
    list_again,
    mirror_of,
    mirrors_of,
    shard_cache,
)
from pipeline.storage.places import is_remote
from pipeline.storage.publishing import LOCK, release_stale
from pipeline.storage.root import WORK, digests_of, read_root_at
from pipeline.storage.shard_cache import SMALL, locked

log = logging.getLogger(__name__)

REQUESTS = 32
"""Small objects that are asked for at a time."""
UNUSED_S = 86_400.0
"""Metadata of an earlier generation is kept at least as long after it was last opened."""
ROOT = "zarr.json"


def local_folder(place: Path) -> Path:
    """The folder to read a store from: itself, or a mirror of what an object store holds of it now.

    Raises:
        StoreError: there is no store, or its metadata does not fit together.
    """
    if not is_remote(place):
        return Path(place)
    mirrors = mirrors_of(place)
    with locked(mirrors / ".lock"):
        root = _root(_mirror(mirrors / WORKING))
        mirror = _mirror(mirrors / hashlib.sha256(root).hexdigest()[:24])
        others = [folder for folder in mirrors.iterdir() if folder.is_dir() and folder != mirror.folder]
        fill(mirror, root, others)
        os.utime(mirror.folder)
        _forget_unused([folder for folder in others if folder.name != WORKING])
    _tell_size(mirror, sum(list_again(mirror).values()))
    return mirror.folder


@contextlib.contextmanager
def checked_folder(place: Path) -> Iterator[Path]:
    """The folder to look for damage in: the store itself, or a mirror for the time of a `with` block, all fetched anew.

    Raises:
        StoreError: there is no store.
    """
    if not is_remote(place):
        yield Path(place)
        return
    folder = mirrors_of(place) / f"check-{uuid.uuid4().hex}"
    mirror = _mirror(folder)
    try:
        fill_anew(mirror, _root(mirror))
        list_again(mirror)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def working_folder(place: Path, *, anew: bool = False) -> Path:
    """The folder in which the next generation of a store is built: itself, or a mirror for `StoreBuilder` to publish.

    Args:
        anew: fetch all metadata again, and leave out what is missing or damaged.

    Raises:
        UsageError: the place holds something else.
        StoreError: another process is building in it.
    """
    if not is_remote(place):
        return Path(place)
    mirrors = mirrors_of(place)
    mirror = _mirror(mirrors / WORKING)
    root = mirror.remote.find(ROOT)
    with lock_store(mirror.folder):
        listed = list_again(mirror)
        if LOCK in listed:
            release_stale(mirror)
        if root is None and any(not key.startswith(f"{WORK}/") for key in listed):
            raise UsageError(
                f"{mirror.url}: holds other things and is not a store", "choose another place with -o"
            )
        if root is None or digest_of(mirror.folder) != hashlib.sha256(root.data).hexdigest():
            _clear(mirror.folder)
        if root is not None and anew:
            fill_anew(mirror, root.data)
        elif root is not None:
            others = [folder for folder in mirrors.iterdir() if folder.is_dir() and folder != mirror.folder]
            fill(mirror, root.data, others)
    return mirror.folder


def fill(mirror: Mirror, root: bytes, others: Sequence[Path]) -> None:
    """Fetch the metadata of the generation with this root, as far as it is not there; the root appears last.

    Args:
        others: mirrors of other generations, to take from what is the same.

    Raises:
        StoreError: the root is not one, or something that it lists is missing or damaged.
    """
    digests = _digests(mirror, root)
    missing = [name for name, digest in digests.items() if digest_of(mirror.folder / name) != digest]
    fetched = _fetch_nodes(mirror, digests, others, missing)
    if not all(fetched):
        name = missing[fetched.index(False)]
        raise StoreError(f"{mirror.url}/{name}/{ROOT}: missing, or changed since spk wrote it", REBUILT)
    write_atomic(mirror.folder / ROOT, root, durable=False)


def fill_anew(mirror: Mirror, root: bytes) -> None:
    """Fetch all metadata of the generation with this root, but for what is missing or damaged."""
    digests = _digests(mirror, root)
    for name in digests:
        (mirror.folder / name / ROOT).unlink(missing_ok=True)
    _fetch_nodes(mirror, digests, [], list(digests))
    write_atomic(mirror.folder / ROOT, root, durable=False)


def _digests(mirror: Mirror, root: bytes) -> dict[str, str]:
    write_atomic(mirror.folder / WORK / ROOT, root, durable=False)
    return digests_of(read_root_at(mirror.folder / WORK), outdated=True)


def _root(mirror: Mirror) -> bytes:
    found = mirror.remote.find(ROOT)
    if found is None:
        raise StoreError(f"{mirror.url}: no store here", f"spk ingest RAW -o {mirror.url} --manifest NAME")
    return found.data


def _fetch_nodes(
    mirror: Mirror, digests: Mapping[str, str], others: Sequence[Path], names: Sequence[str]
) -> list[bool]:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(functools.partial(_fetch_node, mirror, digests, others), names))


def _fetch_node(mirror: Mirror, digests: Mapping[str, str], others: Sequence[Path], name: str) -> bool:
    """Fetch the metadata of a node; False if it is not there as the digest says."""
    target = mirror.folder / name / ROOT
    for other in others:
        if digest_of(other / name) == digests[name]:
            write_atomic(target, metadata_bytes(other / name), durable=False)
            return True
    place = f"{name}/{ROOT}"
    for key in (place, f"{BUILDING}/{place}", place):  # it may be on its way into place
        found = mirror.remote.find(key)
        if found is not None and hashlib.sha256(found.data).hexdigest() == digests[name]:
            write_atomic(target, found.data, durable=False)
            return True
    return False


def _mirror(folder: Path) -> Mirror:
    mirror = mirror_of(folder)
    assert mirror is not None
    return mirror


def _clear(folder: Path) -> None:
    """Drop the metadata of an earlier generation; what a stage that was interrupted has built stays."""
    kept = {folder / BUILDING, folder / WORK / "receipts", folder / WORK / "lock"}
    for path in [*folder.iterdir(), *(folder / WORK).iterdir()]:
        if path.name == WORK or path in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _forget_unused(folders: Sequence[Path]) -> None:
    """Delete mirrors of earlier generations that nobody has open, nor had for a day."""
    for folder in folders:
        if time.time() - folder.stat().st_mtime > UNUSED_S and not _is_open(folder / ROOT):
            shutil.rmtree(folder, ignore_errors=True)


def _is_open(root: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), root.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _tell_size(mirror: Mirror, num_bytes: int) -> None:
    limit = shard_cache().limit()
    if num_bytes > limit:
        log.warning(
            "%s: %.1f GB, of which the local cache keeps %.1f: what is dropped is fetched again each epoch; %s",
            *(mirror.url, num_bytes / 1e9, limit / 1e9, SMALL),
        )
