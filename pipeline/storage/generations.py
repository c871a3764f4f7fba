"""From one generation of a store to the next, once its root is committed; every step can be done again after a crash.

New nodes are moved from where they were built into place. What they replace is set aside, under its digest, as long as
a process holds a lock on the root that lists it.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.files import make_durable, sync_directory, write_atomic
from pipeline.storage.lock import is_locked
from pipeline.storage.metadata import check_sizes, digest_of, metadata_bytes, read_metadata
from pipeline.storage.nodes import ASIDE, BUILDING, Nodes
from pipeline.storage.root import GENERATION, WORK, Attributes, digests_of, read_root_at

HELD = f"{WORK}/held"
"""Roots of earlier generations, each in a folder of its own, as long as somebody may read them."""


def settle(store: Path, root: Attributes) -> None:
    """Put the nodes of the committed generation into place, and delete what nobody reads of earlier ones."""
    text = metadata_bytes(store)
    if not (store / WORK / "zarr.json").is_file() or metadata_bytes(store / WORK) != text:
        write_atomic(store / WORK / "zarr.json", text)
    digests, touched = digests_of(root), set[Path]()
    _take_back(store, digests)
    for name, folder in list(folders_with("zarr.json", store / BUILDING)):
        if digests.get(name) == digest_of(folder):
            touched |= _put_into_place(store, name)
    for held in _held(store):
        gone = held.digests.keys() - digests_of(root, outdated=True).keys()
        for name in sorted(gone, reverse=True):  # what is in a group before the group
            touched |= _drop(store, name)
    for folder in touched:
        if folder.is_dir():
            sync_directory(folder)
    _forget_unread(store)
    remove_empty(store / WORK)


def _take_back(store: Path, digests: Mapping[str, str]) -> None:
    """Copy nodes that are of this generation, and lie aside, to where they are put into place from.

    It is so where the root was restored from a copy that was a generation old.
    """
    for name, digest in digests.items() if (store / ASIDE).is_dir() else ():
        aside, built = store / ASIDE / digest, store / BUILDING / name
        if digest_of(aside) == digest and digest not in (digest_of(store / name), digest_of(built)):
            files = sorted(path.relative_to(aside) for path in aside.rglob("*") if path.is_file())
            for file in files:  # c/... comes before zarr.json: a node without that is not there yet
                write_atomic(built / file, (aside / file).read_bytes())


def _drop(store: Path, name: str) -> set[Path]:
    """Take a node, and the folders that are empty then, out of the hierarchy; returns the folders that this changed."""
    touched = _set_aside(store, name)
    (store / name / "zarr.json").unlink(missing_ok=True)
    folders = [store / name, *(store / name).parents]
    for folder in folders[: folders.index(store)]:
        with contextlib.suppress(OSError):  # there is something else in it
            os.rmdir(folder)
    return touched


def _put_into_place(store: Path, name: str) -> set[Path]:
    """Move a node from where it was built; returns the folders that this changed."""
    new, place = store / BUILDING / name, store / name
    touched = _set_aside(store, name)
    make_durable(place.parent)
    if _is_array(new):
        shutil.rmtree(place, ignore_errors=True)  # something without metadata
        os.rename(new, place)
        return touched | {new.parent, place.parent}
    make_durable(place)
    os.replace(new / "zarr.json", place / "zarr.json")
    return touched | {new, place}


def _set_aside(store: Path, name: str) -> set[Path]:
    """Move the node that is in place to where its digest says; of a group with nodes in it, copy the metadata."""
    place = store / name
    if (digest := digest_of(place)) is None:
        return set()
    aside = store / ASIDE / digest
    if not _is_array(place) and os.listdir(place) != ["zarr.json"]:
        write_atomic(aside / "zarr.json", metadata_bytes(place))
        return set()
    make_durable(aside.parent)
    if _is_whole(aside):  # of another name, or another time: readers have it already
        shutil.rmtree(place)
    else:
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place, aside)
    return {aside.parent, place.parent}


def _is_whole(node: Path) -> bool:
    try:
        check_sizes(node, read_metadata(node))
    except StoreError:
        return False
    return True


def _is_array(node: Path) -> bool:
    try:
        return bool(read_metadata(node).get("node_type") == "array")
    except StoreError:  # damaged: the node that replaces it is none of its shards'
        return False


def hold_root(store: Path, root: Attributes) -> None:
    """Keep the root that is about to be replaced: the very file, because its readers hold a lock on it."""
    folder = store / HELD / str(root.get(GENERATION, 0))
    make_durable(folder)
    (folder / "zarr.json").unlink(missing_ok=True)
    try:
        os.link(store / "zarr.json", folder / "zarr.json")
    except OSError:  # no links on this file system: nobody will be found to read it
        shutil.copyfile(store / "zarr.json", folder / "zarr.json")
    sync_directory(folder)


def _held(store: Path) -> list[Nodes]:
    """The generations before the current one that somebody may still read."""
    held = []
    for folder in sorted((store / HELD).glob("*")):
        try:
            held.append(Nodes(folder, digests_of(read_root_at(folder), outdated=True)))
        except StoreError:  # no reader can have opened that
            shutil.rmtree(folder)
    return held


def _forget_unread(store: Path) -> None:
    """Delete the generations that nobody reads any more."""
    kept: set[str] = set()
    for held in _held(store):
        if is_locked(held.store / "zarr.json"):
            kept |= set(held.digests.values())
        else:
            shutil.rmtree(held.store)
    if (store / ASIDE).is_dir():
        for node in [node for node in (store / ASIDE).iterdir() if node.name not in kept]:
            shutil.rmtree(node)


def remove_empty(folder: Path) -> None:
    """Remove the folder and those in it, as far as there is nothing in them."""
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def folders_with(file: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Folders below `root` that hold something called `file` or so ending, by their path below it."""
    for place, _, files in os.walk(root):
        if any(name.endswith(file) for name in files):
            yield Path(place).relative_to(root).as_posix(), Path(place)
