"""The `zarr.json` of groups and arrays, and the ledgers in them: read without trusting what they say or are."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.storage.mirror import is_there, place_of

REPAIR = "spk repair STORE rebuilds what is damaged, from the recordings"
MAX_METADATA_BYTES = 1 << 26
_SHARD_KEY = re.compile(r"c(/[0-9]+)*")


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the `zarr.json` of a group or array.

    Raises:
        StoreError: it is not there or not JSON.
    """
    return parse_metadata(path, metadata_bytes(path))


def metadata_bytes(path: Path) -> bytes:
    """The bytes of a group's or array's `zarr.json`.

    Raises:
        StoreError: it is not there, not an ordinary file (a pipe would block, a link may lead anywhere), or huge.
    """
    file = path / "zarr.json"
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise StoreError(f"{file}: not an ordinary file", REPAIR)
            text = opened.read(MAX_METADATA_BYTES + 1)
    except FileNotFoundError:
        raise StoreError(f"{file} is missing: no Zarr group or array here") from None
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}", REPAIR) from error
    if len(text) > MAX_METADATA_BYTES:
        raise StoreError(f"{file}: more than {MAX_METADATA_BYTES} bytes", REPAIR)
    return text


def digest_of(node: Path) -> str | None:
    """SHA-256 of a node's `zarr.json`, by which the root knows it; None if it has none that can be read."""
    try:
        return hashlib.sha256(metadata_bytes(node)).hexdigest()
    except StoreError:
        return None


def parse_metadata(path: Path, text: bytes) -> dict[str, Any]:
    """The values of a `zarr.json`.

    Raises:
        StoreError: it is not JSON, or not of a group or array.
    """
    file = path / "zarr.json"
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file}: cannot be read: {error}", REPAIR) from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("attributes"), dict):
        raise StoreError(f"{file}: not a Zarr v3 group or array", REPAIR)
    return metadata


def check_sizes(node: Path, metadata: Mapping[str, Any]) -> None:
    """Compare the files of an array with the ledger in its metadata.

    Raises:
        StoreError: a shard is missing or has another size.
    """
    for key, size in ledger_sizes(node, metadata["attributes"].get("ledger", {})):
        shard = node / key
        try:
            status = shard.lstat()
        except OSError:
            if is_there(shard, size):
                continue  # in an object store
            raise StoreError(f"{place_of(shard)}: shard is missing, or cut short", REPAIR) from None
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{shard}: not an ordinary file", REPAIR)
        if status.st_size != size:
            raise StoreError(f"{shard}: {status.st_size} bytes, but {size} were written", REPAIR)


def ledger_sizes(node: Path, ledger: Any) -> Iterator[tuple[str, int]]:
    """Keys and sizes in bytes of the shards that the ledger of an array lists.

    Raises:
        StoreError: it is not a ledger.
    """
    try:
        for key, (size, _) in ledger.items():
            if not _SHARD_KEY.fullmatch(key):
                raise ValueError(key)
            yield key, size
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreError(
            f"{node / 'zarr.json'}: its ledger is not as spk writes it: {error}", REPAIR
        ) from error
