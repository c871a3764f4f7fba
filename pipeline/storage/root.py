"""The record at the root of a store: what the store holds, and which stages are finished.

It carries a checksum of itself, and digests of all other metadata, which in turn holds the ledgers of the shards:
whatever changes behind the program's back shows against something above it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError, UsageError
from pipeline.fingerprints import fingerprint_of
from pipeline.storage.metadata import read_metadata

SPK_FORMAT = 1
INGEST = "ingest"
VOXELIZE = "voxelize/"
STATS = "stats"
OFFSETS = "offsets"
"""Spike frames by which `spk align --apply` corrected the exposures of sequences, by "split/sequence"."""
WORK = ".spk"
"""Directory inside a store: a copy of the root; while a stage runs or after it was interrupted, what it built."""
OUTDATED = "outdated"
"""Records of stages that were finished, and whose inputs have changed since."""
GENERATION = "generation"

WRITTEN_LAST = ("stages", OUTDATED, GENERATION, "fingerprint", "checksum")
"""Attributes that `root_metadata` adds."""

Attributes = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
START_AGAIN = "spk repair STORE restores it from its copy"


def read_root(store: Path) -> Attributes | None:
    """The attributes of a store's root; None if there is no store yet.

    Raises:
        StoreError: it is damaged, not of a store, or of another format version.
    """
    if not (store / "zarr.json").is_file():
        if (store / WORK / "zarr.json").is_file():
            raise StoreError(f"{store / 'zarr.json'} is missing", START_AGAIN)
        return None
    return read_root_at(store)


def read_root_at(folder: Path) -> Attributes:
    """The attributes of a root, or of a copy of one, in the `zarr.json` of a folder.

    Raises:
        StoreError: as `read_root`, and if there is none.
    """
    file = folder / "zarr.json"
    metadata = read_metadata(folder)
    attributes: Attributes = metadata["attributes"]
    if "spk_format" not in attributes:
        raise StoreError(f"{file}: a Zarr group, but not a store of spk", START_AGAIN)
    if attributes["spk_format"] != SPK_FORMAT:
        found = attributes["spk_format"]
        raise StoreError(
            f"{folder}: spk_format is {found!r}, this program reads {SPK_FORMAT}", "ingest it again"
        )
    if metadata != _group(attributes) or attributes.get("checksum") != _checksum(attributes):
        raise StoreError(f"{file}: does not match its own checksum", START_AGAIN)
    if not _is_sane(attributes):
        raise StoreError(f"{file}: its splits and stages are not as spk writes them", START_AGAIN)
    return attributes


def root_metadata(
    attributes: Attributes,
    stages: dict[str, Attributes],
    outdated: dict[str, Attributes] | None = None,
    generation: int = 1,
) -> dict[str, Any]:
    """The metadata of a root: what `attributes` say of the store, with exactly these stages finished."""
    fingerprint = fingerprint_of([attributes["splits"], stages])
    values = {name: value for name, value in attributes.items() if name not in WRITTEN_LAST}
    values |= {"stages": stages, "fingerprint": fingerprint, GENERATION: generation}
    values |= {OUTDATED: outdated} if outdated else {}
    return _group(values | {"checksum": _checksum(values)})


def group_metadata(attributes: Attributes) -> dict[str, Any]:
    """The metadata of a group."""
    return _group(attributes)


def encoded(metadata: dict[str, Any]) -> str:
    """The text of a `zarr.json`."""
    return json.dumps(metadata, indent=1) + "\n"


def sequence_keys(attributes: Attributes) -> list[str]:
    """Every sequence that the root lists, as "split/sequence"."""
    return [f"{split}/{name}" for split, names in attributes["splits"].items() for name in names]


def digests_of(root: Attributes | None, *, outdated: bool = False) -> dict[str, str]:
    """Digests of all nodes that a root lists, by path below the store.

    Args:
        outdated: also those of stages that have to be brought up to date.
    """
    digests: dict[str, str] = {}
    for record in _records(root or {}, outdated=outdated):
        digests |= record.get(STATS, {})
        for nodes in record.get("sequences", {}).values():
            digests |= nodes
    return digests


def _records(root: Attributes, *, outdated: bool) -> Iterator[Mapping[str, Any]]:
    if outdated:  # first, so that what is up to date prevails
        yield from root.get(OUTDATED, {}).values()
    yield from root.get("stages", {}).values()


def require_store_or_nothing(out: Path) -> None:
    """Refuse to build a store among files that are something else.

    Raises:
        UsageError: `out` is a file, or a directory that holds other things than a store.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: exists and is not a directory", "choose another directory with -o")
    if not out.is_dir() or (out / WORK).is_dir() or not any(out.iterdir()):
        return
    try:
        known = "spk_format" in read_metadata(out).get("attributes", {})
    except StoreError:
        known = False
    if not known:
        raise UsageError(f"{out}: exists and is not a store", "choose another directory with -o")


def program_version() -> str:
    """The installed version of this program, or "not installed"."""
    try:
        return version("spike-deblur")
    except PackageNotFoundError:
        return "not installed"


def _group(attributes: Attributes) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _is_sane(attributes: Attributes) -> bool:
    """Whether splits and stages name places inside the store: anyone can compute a checksum."""
    try:
        sequences = [name for names in attributes["splits"].values() for name in names]
        digests = digests_of(attributes, outdated=True)
        names = [*attributes["splits"], *sequences, *(part for node in digests for part in node.split("/"))]
        whole = type(attributes.get("scale", 1)) is int and type(attributes["fingerprint"]) is str
        whole = whole and type(attributes.get(GENERATION, 0)) is int
        known = all(_NAME.fullmatch(name) for name in names)
        return whole and known and all(_DIGEST.fullmatch(digest) for digest in digests.values())
    except (KeyError, TypeError, AttributeError):
        return False


def _checksum(attributes: Attributes) -> str:
    return fingerprint_of({key: value for key, value in attributes.items() if key != "checksum"})
