"""What is in a store: its values, its files, and whether it is whole, read as a user would read it."""

import collections
import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.errors import SpkError, StoreError
from pipeline.storage.mapped import forget_maps
from pipeline.store import Store, open_store

Values = dict[str, str]
"""Everything that can be read from a store: a digest of it, by name."""
READS, READ_EVERY_SECONDS = 10, 0.03
"""What a process that keeps a store open does with it: it outlasts a rebuild."""


def values_of(path: Path) -> Values:
    """Open a store and read all of it.

    Raises:
        StoreError: it says that it is not whole.
    """
    try:
        return read_values(open_store(path))
    finally:
        forget_maps(path)


def read_values(store: Store) -> Values:
    """Read all of a store that is open."""
    forget_maps(store.path)
    values: dict[str, Any] = {
        "splits": store.splits,
        "stages": sorted(store.stages),
        "name": store.name,
        "scale": store.scale,
    }
    for key in store.sequence_keys:
        sequence, place = store.sequence(*key), "/".join(key)
        values[place] = [sequence.frames, sequence.positions, sequence.camera, sequence.spike_shape]
        values[f"{place}/light"] = [str(fit) for fit in sequence.light]
        arrays = {name: sequence.voxels(name) for name in store.voxel_names}
        arrays |= {"spikes": sequence.spikes, "blurry": sequence.blurry, "sharp": sequence.sharp}
        tables = {name: getattr(sequence, name) for name in ("exposure", "exposure_ns", "sharp_index")}
        for name, array in {**arrays, **tables}.items():
            if array is not None:
                values[f"{place}/{name}"] = [
                    array.shape,
                    str(array.dtype),
                    sha256(array[:]).hexdigest(),
                ]
    for name in store.voxel_names:
        norms = [store.normalization(name, transform) for transform in (None, "count", "log1p")]
        values[f"stats/{name}"] = [str(norm) for norm in norms]
    return {name: sha256(json.dumps(value).encode()).hexdigest() for name, value in values.items()}


def plain_values_of(path: Path) -> Values:
    """Read all arrays of a store as any Zarr reader would, which knows nothing of ledgers and digests.

    Raises:
        StoreError: zarr says that something is wrong.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        arrays = {name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
        return {name: sha256(array[...]).hexdigest() for name, array in sorted(arrays.items())}
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        raise StoreError(f"{path}: {error}") from error


def which(path: Path, generations: dict[str, Values]) -> str:
    """Which of the known generations a store holds, whole: its name.

    Raises:
        StoreError: it says that it is not whole.
        AssertionError: it says that it is, but holds something else.
    """
    values = values_of(path)
    names = [name for name, known in generations.items() if known == values]
    assert names, f"{path} holds a mixture: {differing(values, generations)}"
    return names[0]


def differing(values: Values, generations: dict[str, Values]) -> dict[str, list[str]]:
    """What is not as in each of the known generations."""
    return {
        name: sorted(key for key in known.keys() | values.keys() if known.get(key) != values.get(key))
        for name, known in generations.items()
    }


def files_of(root: Path) -> list[Path]:
    """Every file below a directory, in order."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def tree_of(root: Path) -> dict[str, bytes | None]:
    """The bytes of every file below a directory, by relative name; None for directories."""
    paths = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}


def differences(tree: dict[str, bytes | None], wanted: dict[str, bytes | None]) -> list[str]:
    """Names of what is missing, too many or different."""
    return sorted(
        name for name in tree.keys() | wanted.keys() if tree.get(name, b"-") != wanted.get(name, b"-")
    )


def follow(path: str, stop: str, kept_open: str, report: str) -> int:
    """Open a store and read all of it, again and again, until there is a file `stop`; then write a report.

    Args:
        kept_open: "1" to read several times before opening anew: what is read then must be the same each time.
    """
    digests: collections.Counter[str] = collections.Counter()
    errors: collections.Counter[str] = collections.Counter()
    opens, changed, store, first = 0, 0, None, None
    while not os.path.exists(stop):
        try:
            store = open_store(Path(path))
            opens += 1
            first = None
            for _ in range(READS if kept_open == "1" else 1):
                digest = sha256(json.dumps(read_values(store), sort_keys=True).encode()).hexdigest()
                digests[digest] += 1
                changed += first not in (None, digest)
                first = digest
                time.sleep(READ_EVERY_SECONDS if kept_open == "1" else 0)
        except (SpkError, OSError, ValueError) as error:
            errors[f"{type(error).__name__}: {error}"] += 1
    told = {"opens": opens, "changed": changed, "digests": dict(digests), "errors": dict(errors)}
    Path(report).write_text(json.dumps(told))
    return 0


def digest_of(values: Values) -> str:
    """What `follow` reports of these values."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
