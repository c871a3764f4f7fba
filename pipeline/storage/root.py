"""The record at the root of a store: what the store holds, and which stages are finished.

It carries a checksum of itself, and digests of all other metadata, which in turn holds the ledgers of the shards:
whatever changes behind the program's back shows against something above it.
"""

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError, UsageError
from pipeline.files import write_atomic
from pipeline.fingerprints import fingerprint_of
from pipeline.storage.metadata import read_metadata

SPK_FORMAT = 1
INGEST = "ingest"
VOXELIZE = "voxelize/"
STATS = "stats"
OFFSETS = "offsets"
"""Spike frames by which `spk align --apply` corrected the exposures of sequences, by "split/sequence"."""
WORK = ".spk"
"""Directory inside a store, there only while a stage runs or after it was interrupted: lock and receipts."""

WRITTEN_LAST = ("stages", "fingerprint", "checksum")
"""Attributes that `write_root` adds."""

Attributes = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
START_AGAIN = "restore the file from a copy, or remove the store and ingest again"


def read_root(store: Path) -> Attributes | None:
    """The attributes of a store's root; None if there is no store yet.

    Raises:
        StoreError: it is damaged, not of a store, or of another format version.
    """
    file = store / "zarr.json"
    if not file.is_file():
        return None
    metadata = read_metadata(store)
    attributes: Attributes = metadata.get("attributes", {})
    if "spk_format" not in attributes:
        raise StoreError(f"{file}: a Zarr group, but not a store of spk", START_AGAIN)
    if attributes["spk_format"] != SPK_FORMAT:
        found = attributes["spk_format"]
        raise StoreError(
            f"{store}: spk_format is {found!r}, this program reads {SPK_FORMAT}", "ingest it again"
        )
    if metadata != _group(attributes) or attributes.get("checksum") != _checksum(attributes):
        raise StoreError(f"{file}: does not match its own checksum", START_AGAIN)
    if not _is_sane(attributes):
        raise StoreError(f"{file}: its splits and stages are not as spk writes them", START_AGAIN)
    return attributes


def write_root(store: Path, attributes: Attributes, stages: dict[str, Attributes]) -> None:
    """Write the root: what `attributes` say of the store, with exactly these stages finished."""
    fingerprint = fingerprint_of([attributes["splits"], stages])
    values = attributes | {"stages": stages, "fingerprint": fingerprint}
    write_group(store, values | {"checksum": _checksum(values)})


def write_group(group: Path, attributes: Attributes) -> None:
    """Write the metadata of a group."""
    write_node(group, _group(attributes))


def write_node(node: Path, metadata: dict[str, Any]) -> None:
    """Write the `zarr.json` of a group or array."""
    write_atomic(node / "zarr.json", json.dumps(metadata, indent=1) + "\n")


def sequence_keys(attributes: Attributes) -> list[str]:
    """Every sequence that the root lists, as "split/sequence"."""
    return [f"{split}/{name}" for split, names in attributes["splits"].items() for name in names]


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
        records = list(attributes["stages"].values())
        nodes = [
            node for record in records for nodes in record.get("sequences", {}).values() for node in nodes
        ]
        nodes += [node for record in records for node in record.get(STATS, {})]
        names = [*attributes["splits"], *sequences, *(part for node in nodes for part in node.split("/"))]
        whole = type(attributes.get("scale", 1)) is int and type(attributes["fingerprint"]) is str
        return whole and all(_NAME.fullmatch(name) for name in names)
    except (KeyError, TypeError, AttributeError):
        return False


def _checksum(attributes: Attributes) -> str:
    return fingerprint_of({key: value for key, value in attributes.items() if key != "checksum"})
