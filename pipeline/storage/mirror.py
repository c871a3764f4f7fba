"""Local folders that stand for a store in an object store: metadata in them, shards fetched when they are touched.

    CACHE/stores/<name>-<id>/remote.json       which place it is
                            /<generation>/     metadata of one generation, laid out as the store is
                            /work/             where the next generation is built

A file of such a folder is the object whose key is its path below the folder. Shards are shared by all generations: a
copy is known by what the ledger says of the shard, so that a rebuilt store never gives old ones.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import StoreError
from pipeline.files import make_durable, sync_directory, write_atomic
from pipeline.storage.places import bucket_and_prefix, url_of
from pipeline.storage.remote import RemoteStore, connect, endpoint
from pipeline.storage.shard_cache import ShardCache, cache_folder, locked
from pipeline.storage.shards import SEAL_BYTES, Receipt

WORKING = "work"
BUILDING = ".spk/building"
"""Where a writer keeps what is to be moved into place after its commit."""
_MARKER = "remote.json"
REBUILT = "if it was rebuilt meanwhile, run the command again; else: spk verify"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """One of these folders, and the place it stands for."""

    folder: Path
    url: str

    @property
    def remote(self) -> RemoteStore:
        return connect(self.url)

    def key(self, path: Path) -> str:
        """The object that a path in the folder stands for."""
        return path.relative_to(self.folder).as_posix()

    def holds(self, path: Path, size: int) -> bool:
        """Whether the object of a path is there with this size, as of the last listing."""
        return size in (_sizes(self).get(key) for key in self._keys(path))

    def size(self, path: Path) -> int | None:
        """Bytes of the object of a path, as of the last listing; None if it is not there."""
        found = (_sizes(self).get(key) for key in self._keys(path))
        return next((size for size in found if size is not None), None)

    @contextlib.contextmanager
    def fresh_copy(self, path: Path, size: int) -> Iterator[Path]:
        """A copy of the object of a path, of this size, that was not in the cache, for the time of a `with` block."""
        key = next((key for key in self._keys(path) if _sizes(self).get(key) == size), self.key(path))
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            copy = Path(folder, "shard")
            self.remote.fetch(key, copy)
            yield copy

    def _keys(self, path: Path) -> tuple[str, str]:
        """Where the object of a path may be: a commit may not have put it into place yet."""
        return self.key(path), f"{BUILDING}/{self.key(path)}"

    def open_shard(self, path: Path, receipt: Receipt, index_bytes: int) -> BinaryIO:
        """Open a local copy of the shard at a path; it is fetched if there is none.

        Raises:
            StoreError: the object is missing, or is not the shard that the receipt describes.
        """

        def is_whole(file: BinaryIO) -> bool:
            if os.fstat(file.fileno()).st_size != receipt.size:
                return False
            file.seek(receipt.size - index_bytes - SEAL_BYTES)
            return int.from_bytes(file.read(SEAL_BYTES), "little") == receipt.seal

        def fetch(copy: Path) -> None:
            self.remote.fetch(key, copy)
            with copy.open("rb") as file:
                if is_whole(file):
                    return
            copy.unlink()
            raise StoreError(f"{self.url}/{key}: is not the shard that was written here", REBUILT)

        key = self.key(path)
        facts = [self.url, endpoint(), key.removeprefix(f"{BUILDING}/"), receipt.size, receipt.seal]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]
        return shard_cache().open(name, receipt.size, is_whole, fetch)


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a path lies in, if it lies in one."""
    stores = cache_folder() / "stores"
    if not path.is_relative_to(stores) or len(parts := path.relative_to(stores).parts) < 2:
        return None
    return _read_mirror(stores / parts[0] / parts[1])


def mirrors_of(place: Path) -> Path:
    """The folder, made if need be, that holds the mirrors of a place in an object store."""
    url = url_of(place)
    bucket, prefix = bucket_and_prefix(place)
    identity = hashlib.sha256(f"{endpoint()}\n{url}".encode()).hexdigest()[:16]
    folder = cache_folder() / "stores" / f"{prefix.rpartition('/')[2] or bucket}-{identity}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / _MARKER).is_file():
            write_atomic(folder / _MARKER, json.dumps({"url": url, "writer": uuid.uuid4().hex}))
    return folder


def writer_of(mirrors: Path) -> str:
    """What tells the working folder among these mirrors from those of the same place on other machines."""
    return str(json.loads((mirrors / _MARKER).read_bytes())["writer"])


def open_shard(path: Path, receipt: Receipt, index_bytes: int) -> BinaryIO:
    """Open the shard at a path of a store, or a local copy of it where the path lies in a mirror.

    Raises:
        OSError: it is not there.
        StoreError: it is not at the mirror's place either.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        mirror = mirror_of(path)
        if mirror is None:
            raise
        return mirror.open_shard(path, receipt, index_bytes)


def place_of(path: Path) -> str:
    """A store, or something in it, as a user names it, also where it is read through a mirror."""
    mirror = mirror_of(path.absolute())
    if mirror is None:
        return str(path)
    return mirror.url if path == mirror.folder else f"{mirror.url}/{mirror.key(path)}"


def is_there(path: Path, size: int) -> bool:
    """Whether a shard is at a path of a store, or of a mirror's place, with this size."""
    try:
        return path.stat().st_size == size
    except OSError:
        mirror = mirror_of(path)
        return mirror is not None and mirror.holds(path, size)


def ship(path: Path) -> None:
    """Where a finished shard lies in a mirror, upload it; it need not be on the local disk then."""
    mirror = mirror_of(path)
    if mirror is None:
        return
    size = path.stat().st_size
    mirror.remote.put(mirror.key(path), path)
    _sizes(mirror)[mirror.key(path)] = size
    path.unlink()


def move_shard(path: Path, place: Path) -> None:
    """Put a finished shard to another place in its store."""
    mirror = mirror_of(path)
    if mirror is None:
        make_durable(place.parent)
        os.replace(path, place)
        sync_directory(place.parent)
        return
    source, target = mirror.key(path), mirror.key(place)
    mirror.remote.copy(source, target)
    mirror.remote.delete([source])
    _sizes(mirror)[target] = _sizes(mirror).pop(source)


def remove_tree(folder: Path) -> None:
    """Remove a folder of a store, if it is there; of a mirror, also what was shipped from it."""
    shutil.rmtree(folder, ignore_errors=True)
    mirror = mirror_of(folder)
    if mirror is not None:
        sizes, below = _sizes(mirror), f"{mirror.key(folder)}/"
        gone = [key for key in sizes if key.startswith(below)]
        mirror.remote.delete(gone)
        for key in gone:
            del sizes[key]


def write_metadata(file: Path, text: str) -> None:
    """Write a `zarr.json` in its place in a store; in a mirror, also in the store it stands for."""
    write_atomic(file, text)
    mirror = mirror_of(file)
    if mirror is not None:
        mirror.remote.put(mirror.key(file), text.encode())


def list_again(mirror: Mirror) -> dict[str, int]:
    """Make one listing of the place, which `holds` goes by from now on: size in bytes of each object, by key."""
    _LISTINGS[mirror.folder] = sizes = mirror.remote.sizes()
    return sizes


_LISTINGS: dict[Path, dict[str, int]] = {}


def _sizes(mirror: Mirror) -> dict[str, int]:
    sizes = _LISTINGS.get(mirror.folder)
    return list_again(mirror) if sizes is None else sizes


@functools.lru_cache(maxsize=64)
def _read_mirror(folder: Path) -> Mirror:
    file = folder.parent / _MARKER
    try:
        url = json.loads(file.read_bytes())["url"]
        return Mirror(folder=folder, url=url_of(url))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file}: does not say what is mirrored here: {error}", f"rm -r {folder.parent}"
        ) from error


def shard_cache() -> ShardCache:
    """The cache that this process uses."""
    return _cache(cache_folder())


@functools.lru_cache(maxsize=4)
def _cache(folder: Path) -> ShardCache:
    return ShardCache(folder)
