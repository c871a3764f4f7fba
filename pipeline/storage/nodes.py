"""Where the groups and arrays of one generation of a store are.

A node is known by the digest of its `zarr.json`, which for an array holds the ledger of its shards. It lies in place,
at its path in the hierarchy; or where it was built, from the commit of its generation until it is put into place; or
aside, under its digest, from then on that a later generation took its place and until nobody reads it any more.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.storage.metadata import (
    MAX_METADATA_BYTES,
    REPAIR,
    check_sizes,
    metadata_bytes,
    parse_metadata,
)
from pipeline.storage.mirror import BUILDING
from pipeline.storage.root import WORK

ASIDE = f"{WORK}/nodes"
"""What later generations replaced, by digest."""

ATTEMPTS = 4
"""A writer may move a node from the place that is looked at next to the one that was just looked at."""


class Hold:
    """Keeps a generation's files from being deleted, as long as it is referenced: a shared lock on its root's file.

    Only the file that was open at the time counts, not what replaced it. Where the file system knows no locks, a
    generation that was replaced is deleted while it is read, and its readers are told so.
    """

    def __init__(self, store: Path) -> None:
        """
        Raises:
            FileNotFoundError: there is no root.
        """
        file = store / "zarr.json"
        while True:
            self._descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            release = weakref.finalize(self, os.close, self._descriptor)
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # a writer has it for an instant at most
            if self.is_of(store):
                return
            release()  # replaced before it was locked

    def is_of(self, store: Path) -> bool:
        """Is what is held still the store's current generation?"""
        return os.fstat(self._descriptor).st_ino == (store / "zarr.json").stat().st_ino


@dataclass(frozen=True, slots=True)
class Node:
    """A group or array of a generation: where it was found, its metadata, and all places where its shards may be."""

    path: Path
    metadata: dict[str, Any]
    places: tuple[Path, ...]
    hold: Hold | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = self.metadata["attributes"]
        return attributes


@dataclass(frozen=True, slots=True)
class Nodes:
    """The groups and arrays of one generation.

    Attributes:
        digests: SHA-256 of each node's `zarr.json`, by its path below the store.
        hold: keeps the generation from being deleted.
    """

    store: Path
    digests: Mapping[str, str]
    hold: Hold | None = None

    def __contains__(self, name: object) -> bool:
        return name in self.digests

    def find(self, name: str) -> Node:
        """The node at path `name` below the store.

        Raises:
            StoreError: it is missing, or not what this generation has there.
        """
        places = self.places(name)
        for _ in range(ATTEMPTS):
            for place in places:
                if place.is_symlink():
                    continue
                with contextlib.suppress(StoreError):
                    text = metadata_bytes(place)
                    if hashlib.sha256(text).hexdigest() == self.digests[name]:
                        return Node(place, parse_metadata(place, text), places, self.hold)
        if (self.store / name).is_symlink():
            raise StoreError(f"{self.store / name}: a symbolic link in a store", REPAIR)
        metadata_bytes(self.store / name)
        raise StoreError(f"{self.store / name / 'zarr.json'}: changed since spk wrote it", REPAIR)

    def find_whole(self, name: str) -> Node:
        """The node at path `name`, all of its shards there and of their sizes.

        Raises:
            StoreError: it is missing, changed, or not whole.
        """
        for attempt in range(ATTEMPTS):
            node = self.find(name)
            try:
                check_sizes(node.path, node.metadata)
            except StoreError:
                if attempt == ATTEMPTS - 1 or node.path == self.find(name).path:
                    raise
            else:
                return node
        raise AssertionError

    def is_whole_in_place(self, name: str) -> bool:
        """Is the node in place, as the generation has it, with all shards of their sizes? A quick look.

        What it finds wrong, `find_whole` explains; it is a tenth of the work where nothing is.
        """
        folder = f"{self.store}/{name}"
        try:
            if os.path.islink(folder):
                return False
            descriptor = os.open(f"{folder}/zarr.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                text = os.read(descriptor, min(os.fstat(descriptor).st_size, MAX_METADATA_BYTES) + 1)
            finally:
                os.close(descriptor)
            if hashlib.sha256(text).hexdigest() != self.digests[name]:
                return False
            if b'"ledger"' not in text:  # a group, and its digest says all
                return True
            for key, (size, _) in json.loads(text)["attributes"]["ledger"].items():
                found = os.lstat(f"{folder}/{key}")
                if found.st_size != size or not stat.S_ISREG(found.st_mode):
                    return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def places(self, name: str) -> tuple[Path, ...]:
        """Where the node may be, in the order in which to look."""
        in_place = self.store / name
        return in_place, self.store / BUILDING / name, self.store / ASIDE / self.digests[name]
