"""Whether a store can be trained on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from pipeline.checkup.finding import Finding, note, ok, problem
from pipeline.storage.places import shown


def check_store(path: Path) -> Iterator[Finding]:
    """Whether a store opens, is sealed, and has voxel grids with statistics, and splits to learn and to judge by.

    Raises:
        StoreError: it does not open, or its statistics are damaged.
    """
    from pipeline.store import open_store

    name, place = f"store {shown(path)}", quote(shown(path))
    store = open_store(path)
    yield ok(name, f"{store.name}: {len(store.sequence_keys)} sequences, stages {', '.join(store.stages)}")
    if not store.voxel_names:
        yield problem(name, "no voxel grids", f"spk voxelize {place}")
        return
    for voxels in store.voxel_names:
        bins = store.normalization(voxels).num_bins
        yield ok(name, f"voxel grids {voxels} of {bins} bins, with statistics")
    for split, use in (("train", "to learn from"), ("val", "to choose the best checkpoint by")):
        if not store.splits.get(split):
            yield note(name, f"no sequences {use} (split {split!r})", f"spk inspect {place}")


def is_store(path: Path) -> bool:
    """Whether a folder looks like a store, or is to become one."""
    with contextlib.suppress(ImportError):  # what is missing is said elsewhere
        from pipeline.storage.root import WORK

        return (path / "zarr.json").exists() or (path / WORK).exists()
    return (path / "zarr.json").exists()
