"""What a writer does at an object store while it builds in a mirror: lock, commit, and tidying up.

Keys are as in a local store. Shards go to `.spk/building` as they are finished (`mirror.ship`), then metadata;
replacing the root, on the condition that it is still the one that was built upon, is the commit; then objects are
copied into place on the server, and what they replace is gone. All of that can be done again after a crash.
"""

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import StoreError
from pipeline.storage.lock import describe_process
from pipeline.storage.metadata import digest_of, ledger_sizes, metadata_bytes, parse_metadata
from pipeline.storage.mirror import BUILDING, WORKING, Mirror, list_again, mirror_of, writer_of
from pipeline.storage.remote import ConflictError, UnreachableError
from pipeline.storage.root import WORK, Attributes, digests_of

REQUESTS = 32
ROOT = "zarr.json"
COPY = f"{WORK}/{ROOT}"
LOCK = f"{WORK}/lock"
BEFORE = f"{WORK}/before/{ROOT}"
"""The root of the generation before, until nothing is left of what was dropped with it."""
STAGED = f"{BUILDING}/"
ATTEMPTS = 8
_OBJECT = re.compile(r"(.+?)/(?:zarr\.json|c(?:/[0-9]+)+)")

A = TypeVar("A")
B = TypeVar("B")


class Publisher:
    """Of a store on a local disk there is nothing to publish."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes to the place, for the time of a `with` block.

        Raises:
            StoreError: another process is writing, or has written since the mirror was made.
        """
        yield

    def commit(self, root: str) -> None:
        """Make what was built the store, if the root is still the one that was built upon.

        Raises:
            StoreError: another process changed the store, or something that was uploaded is not there.
        """

    def settle(self, root: Attributes, resumable: Iterable[str]) -> None:
        """Put the nodes of the committed generation into place, and delete what is not of it.

        Args:
            resumable: arrays that an interrupted stage has begun to build; they are kept.
        """


def publisher_of(store: Path) -> Publisher:
    """The publisher of a store that is built in a folder: it has work to do where the folder is a mirror."""
    mirror = mirror_of(store)
    assert mirror is None or mirror.folder.name == WORKING
    return Publisher() if mirror is None else _RemotePublisher(mirror)


class _RemotePublisher(Publisher):
    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._root: bytes | None = None
        self._tag: str | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        mirror = self._mirror
        tag = _take_lock(mirror)
        try:
            found = mirror.remote.find(ROOT)
            local = mirror.folder / ROOT
            self._root = local.read_bytes() if local.is_file() else None
            if (found and found.data) != self._root:
                raise StoreError(
                    f"{mirror.url}: another process changed it just now", "run the command again"
                )
            self._tag = found and found.tag
            yield
        finally:
            with contextlib.suppress(UnreachableError):  # the next writer in this folder takes it over
                held = mirror.remote.find(LOCK)
                if held is not None and held.tag == tag:
                    mirror.remote.delete([LOCK])

    def commit(self, root: str) -> None:
        mirror = self._mirror
        digests = digests_of(json.loads(root)["attributes"], outdated=True)
        built = {name: digest_of(mirror.folder / BUILDING / name) for name in digests}
        new = [name for name, digest in digests.items() if built[name] == digest]
        _each(self._upload_metadata, new)
        list_again(mirror)
        for name in new:
            node = mirror.folder / BUILDING / name
            for key, size in _ledger(node, metadata_bytes(node)):
                if not mirror.holds(node / key, size):
                    raise StoreError(
                        f"{mirror.url}/{BUILDING}/{name}/{key}: not there as it was uploaded",
                        "run the command again: it is built again",
                    )
        if root.encode() == self._root:
            return  # built again as it was
        if self._tag is not None:
            mirror.remote.copy(ROOT, BEFORE)
        try:
            self._tag = mirror.remote.replace(ROOT, root.encode(), self._tag)
            self._root = root.encode()
        except ConflictError as error:
            raise StoreError(
                f"{mirror.url}: another process changed it just now", "run the command again"
            ) from error

    def settle(self, root: Attributes, resumable: Iterable[str]) -> None:
        mirror, digests = self._mirror, digests_of(root, outdated=True)
        text = metadata_bytes(mirror.folder)
        copy = mirror.remote.find(COPY)
        if copy is None or copy.data != text:
            mirror.remote.put(COPY, text)
        listed = list_again(mirror)
        staged = {key.removeprefix(STAGED) for key in listed if key.startswith(STAGED)}
        self._put_into_place(digests, listed.keys(), staged)
        before = mirror.remote.find(BEFORE)
        if before is not None:
            known = digests_of(parse_metadata(Path(BEFORE).parent, before.data)["attributes"], outdated=True)
            gone = known.keys() - digests.keys()
            mirror.remote.delete([key for key in listed if _node(key) in gone])
            mirror.remote.delete([BEFORE])
        kept = set(resumable)
        mirror.remote.delete([f"{STAGED}{key}" for key in staged if _node(key) not in kept])
        list_again(mirror)

    def _upload_metadata(self, name: str) -> None:
        self._mirror.remote.put(
            f"{STAGED}{name}/{ROOT}", metadata_bytes(self._mirror.folder / BUILDING / name)
        )

    def _put_into_place(self, digests: Mapping[str, str], listed: Collection[str], staged: set[str]) -> None:
        """Copy what was committed from where it was uploaded; what it replaces, or goes beyond it, is gone then."""
        remote = self._mirror.remote
        nodes = [name for key in staged if key.endswith(f"/{ROOT}") and (name := _node(key)) in digests]
        texts = dict(zip(nodes, _each(lambda name: remote.get(f"{STAGED}{name}/{ROOT}"), nodes), strict=True))
        ledgers = {
            name: {f"{name}/{key}" for key, _ in _ledger(Path(STAGED, name), text)}
            for name, text in texts.items()
            if hashlib.sha256(text).hexdigest() == digests[name]
        }
        shards = sorted(set().union(*ledgers.values()) & staged)
        metadata = [f"{name}/{ROOT}" for name in ledgers]
        for keys in (shards, metadata):
            _each(lambda key: remote.copy(f"{STAGED}{key}", key), keys)
        for keys in (shards, metadata):  # metadata last: as long as it is there, all of this is done again
            remote.delete([f"{STAGED}{key}" for key in keys])
        places = {f"{name}/{ROOT}" for name in ledgers}.union(*ledgers.values())
        remote.delete([key for key in listed if _node(key) in ledgers and key not in places])


def release_stale(mirror: Mirror) -> None:
    """Give back the lock of a place if a process took it that was killed in this folder, whose own lock we hold."""
    held = mirror.remote.find(LOCK)
    if held is not None and _owner(held.data).get("writer") == writer_of(mirror.folder.parent):
        mirror.remote.delete([LOCK])


def _take_lock(mirror: Mirror) -> str:
    """Take the lock of a place; one that was left by a process killed in this folder, whose own lock we hold, too.

    Returns:
        The lock's tag.
    """
    writer = writer_of(mirror.folder.parent)
    note = {"writer": writer, "process": describe_process(), "id": uuid.uuid4().hex}
    data = json.dumps(note).encode()
    for _ in range(ATTEMPTS):
        with contextlib.suppress(ConflictError):
            return mirror.remote.replace(LOCK, data, None)
        held = mirror.remote.find(LOCK)
        if held is None:
            continue  # given back just now
        owner = _owner(held.data)
        if owner.get("writer") != writer:
            raise StoreError(
                f"{mirror.url}: another process is writing: {owner.get('process', 'it does not say who')}",
                f"wait for it; if it is gone for good: aws s3 rm {mirror.url}/{LOCK}",
            )
        with contextlib.suppress(ConflictError):
            return mirror.remote.replace(LOCK, data, held.tag)
    raise StoreError(f"{mirror.url}/{LOCK}: comes and goes", "look who writes there")


def _owner(data: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(data)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _ledger(node: Path, text: bytes) -> Iterator[tuple[str, int]]:
    """Keys and sizes of the shards of an array; none of a group."""
    return ledger_sizes(node, parse_metadata(node, text)["attributes"].get("ledger", {}))


def _node(key: str) -> str:
    """The group or array that an object is of; nothing for what is of none."""
    found = _OBJECT.fullmatch(key)
    return found[1] if found else ""


def _each(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Call `function` on every item, many at a time; the first error is raised when all are done."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(function, items))
