"""The store: one plain Zarr v3 group per data set, which each stage adds to.

    STORE/                       attributes: spk_format, name, manifest, splits, stages, provenance, fingerprint
      <split>/<sequence>/        attributes: frames, positions, timing, sources, ...
        spikes         uint8 (T, H, ceil(W / 8))    bits, first pixel in the lowest bit, upright rows
        blurry, sharp  uint8 (N, 3, H_rgb, W_rgb)
        exposure       int64 (N, 2) spike-frame spans      exposure_ns  int64 (N, 2)
        sharp_index    int64 (N,)   spike frame of the sharp instant, -1 where there is no sharp frame
        voxels/<name>  uint8 (N, K, H, W)           spike counts; virtual: a group, how to count them
      stats/<name>               attributes: exact histogram of the train split's counts, means, deviations

Every array's `zarr.json` carries a *ledger*: size and seal (`shards`) of each of its shards. The root's `stages` hold,
for each stage and sequence, digests of the metadata that stage wrote. `open_store` compares them all, so that a
missing shard, which any Zarr reader would take for zeros, is an error here.

The root is what commits a *generation*: to replace it changes the store from one to the next at once. A store that is
open keeps reading the generation it opened, wherever its nodes are by then (`storage.nodes`).
"""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.physics import LightFit
from pipeline.stats import Normalization, Transform, normalization_from
from pipeline.storage.fetching import local_folder
from pipeline.storage.mapped import MappedArray
from pipeline.storage.metadata import REPAIR
from pipeline.storage.mirror import place_of
from pipeline.storage.nodes import Hold, Nodes
from pipeline.storage.root import INGEST, STATS, VOXELIZE, WORK, digests_of, read_root
from pipeline.virtual_voxels import VIRTUAL, VirtualVoxels

TABLES = ("exposure", "exposure_ns", "sharp_index")


class Sequence:
    """One recording of a store: its frames, spikes and voxel grids, all memory-mapped.

    Attributes:
        split, name: its place in the store; `key` is "split/name".
        frames: names of its N blurry frames.
        positions: which frame of its recording each of them is; a number is skipped for each frame set aside, and for
            each that the times of the others show to be missing.
        voxel_names: its voxel grids that are complete.
    """

    def __init__(self, nodes: Nodes, key: str, voxel_names: tuple[str, ...] = ()) -> None:
        """
        Args:
            nodes: of the store's generation.
            key: "split/sequence".
        """
        self.key = key
        self.path = path = nodes.store / key
        self.split, self.name = key.split("/")
        self.voxel_names = voxel_names
        self._nodes = nodes
        self.attributes: dict[str, Any] = nodes.find(key).attributes
        if not _is_sequence(self.attributes):
            raise StoreError(f"{path / 'zarr.json'}: not a sequence as spk writes it", REPAIR)
        self.frames: tuple[str, ...] = tuple(self.attributes["frames"])
        self.positions: tuple[int, ...] = tuple(self.attributes["positions"])

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Spans [start, stop) of frames that follow one another without a gap, in order; together all frames."""
        return runs_of(self.positions)

    @property
    def camera(self) -> dict[str, Any]:
        """Facts about the spike camera, as `camera_facts` reads them; empty where none came with the recording."""
        return dict(self.attributes.get("camera", {}))

    @property
    def spike_shape(self) -> tuple[int, int]:
        """Height and width of a spike frame, in pixels."""
        height, width = self.attributes["spike_shape"]
        return height, width

    @functools.cached_property
    def exposure(self) -> npt.NDArray[np.int64]:
        """Spike-frame spans [start, stop) of the exposures: (N, 2)."""
        return self._table("exposure")

    @functools.cached_property
    def exposure_ns(self) -> npt.NDArray[np.int64]:
        """The exposures on the spike clock: (N, 2) nanoseconds."""
        return self._table("exposure_ns")

    @functools.cached_property
    def sharp_index(self) -> npt.NDArray[np.int64]:
        """Spike frame of each sharp instant: (N,), -1 where there is no sharp frame."""
        return self._table("sharp_index")

    @functools.cached_property
    def has_sharp(self) -> npt.NDArray[np.bool_]:
        """Which frames have a sharp one to compare with: (N,). The others are test-only."""
        return self.sharp_index >= 0

    @functools.cached_property
    def light(self) -> tuple[LightFit, ...]:
        """How each blurry frame fits the spikes of its exposure: N fits; none if no RGB camera took the frames."""
        return tuple(LightFit(**fit) for fit in self._array("exposure").attributes.get("light", ()))

    @functools.cached_property
    def spikes(self) -> MappedArray:
        """Packed spikes: (T, H, ceil(W / 8)) uint8."""
        return self._array("spikes")

    @functools.cached_property
    def blurry(self) -> MappedArray | None:
        """Blurry frames: (N, 3, H_rgb, W_rgb) uint8, or None where the data set has none."""
        return self._array("blurry") if "blurry" in self.attributes["arrays"] else None

    @functools.cached_property
    def sharp(self) -> MappedArray | None:
        """Sharp frames: (N, 3, H_rgb, W_rgb) uint8, or None. Zeros where `has_sharp` is false."""
        return self._array("sharp") if "sharp" in self.attributes["arrays"] else None

    def voxels(self, name: str) -> MappedArray | VirtualVoxels:
        """Spike counts: (N, K, H, W) uint8, or uint16 where a bin may hold more than 255 frames.

        Raises:
            StoreError: no voxel grids of that name, or unfinished ones.
        """
        if name not in self.voxel_names:
            known = ", ".join(self.voxel_names) or "none"
            fix = f"spk voxelize {self.path.parents[1]} --name {name}"
            raise StoreError(f"{self.path}: no finished voxel grids {name!r}; there are: {known}", fix)
        path, node = self.path / "voxels" / name, self._nodes.find(f"{self.key}/voxels/{name}")
        if node.attributes.get(VIRTUAL) is True:
            return VirtualVoxels(path, node.attributes, self.spikes, self.exposure, self.spike_shape)
        return MappedArray(path, node)

    def _array(self, name: str) -> MappedArray:
        return MappedArray(self.path / name, self._nodes.find(f"{self.key}/{name}"))

    def _table(self, name: str) -> npt.NDArray[np.int64]:
        table = self._array(name)
        if table.dtype != np.int64 or table.shape[:1] != (self.num_frames,):
            raise StoreError(
                f"{table.path}: {table.dtype} {table.shape} for {self.num_frames} frames", REPAIR
            )
        return np.array(table[:])


def _is_sequence(attributes: Mapping[str, Any]) -> bool:
    """Whether the attributes of a group are those of a sequence."""

    def are(kind: type, key: str) -> bool:
        values = attributes.get(key)
        return isinstance(values, list) and bool(values) and all(type(value) is kind for value in values)

    return (
        are(str, "frames")
        and are(int, "positions")
        and are(str, "arrays")
        and are(int, "spike_shape")
        and len(attributes["frames"]) == len(attributes["positions"])
        and len(attributes["spike_shape"]) == 2
    )


class Store:
    """A store that was found to be whole when it was opened. Use `open_store`.

    Attributes:
        path: its directory.
        name: of the data set.
        splits: sequence names of each split.
        stages: names of the finished stages: "ingest", "voxelize/<name>".
        fingerprint: identifies its content.
        nodes: where the groups and arrays of its generation are.
    """

    def __init__(self, path: Path, attributes: dict[str, Any], hold: Hold | None = None) -> None:
        self.path = path
        self.nodes = Nodes(path, digests_of(attributes), hold)
        self.attributes = attributes
        self.name: str = attributes["name"]
        self.splits: dict[str, tuple[str, ...]] = {
            s: tuple(names) for s, names in attributes["splits"].items()
        }
        self._known = frozenset(self.sequence_keys)
        self.stages: tuple[str, ...] = tuple(attributes["stages"])
        self.fingerprint: str = attributes["fingerprint"]

    @property
    def place(self) -> str:
        """Where it is, as a user names it: a folder, or `s3://…`, of which `path` is a mirror then."""
        return place_of(self.path)

    @property
    def scale(self) -> int:
        """RGB pixels per spike pixel, along a side."""
        return int(self.attributes["scale"])

    @property
    def voxel_names(self) -> tuple[str, ...]:
        """Names of the voxel grids that are complete."""
        return tuple(stage.removeprefix(VOXELIZE) for stage in self.stages if stage.startswith(VOXELIZE))

    @property
    def sequence_keys(self) -> list[tuple[str, str]]:
        """(split, sequence) of every sequence."""
        return [(split, name) for split, names in self.splits.items() for name in names]

    def sequence(self, split: str, name: str) -> Sequence:
        """Open one sequence.

        Raises:
            UsageError: the store has no such sequence.
        """
        if (split, name) not in self._known:
            known = {split: len(names) for split, names in self.splits.items()}
            raise UsageError(f"{self.place}: no sequence {split}/{name}; sequences per split: {known}")
        return Sequence(self.nodes, f"{split}/{name}", self.voxel_names)

    def sequences(self, split: str) -> list[Sequence]:
        """All sequences of a split; none if the store does not have the split."""
        return [self.sequence(split, name) for name in self.splits.get(split, ())]

    def voxel_name(self, wanted: str | None = None) -> str:
        """`wanted` if the store has it; the only one there is if None.

        Raises:
            StoreError: no such voxel grids, or several to choose from.
        """
        names = self.voxel_names
        if wanted in names or (wanted is None and len(names) == 1):
            return wanted or names[0]
        if not names:
            raise StoreError(f"{self.place}: has no voxel grids yet", f"spk voxelize {self.place}")
        problem = f"no voxel grids {wanted!r}" if wanted else "several voxel grids to choose from"
        raise StoreError(f"{self.place}: {problem}; there are: {', '.join(names)}", f"set voxels={names[0]}")

    def normalization(self, voxels: str, transform: Transform | None = None) -> Normalization:
        """Statistics of the train split's counts as the normalization to apply when they are read.

        Raises:
            StoreError: no such voxel grids, or none with statistics: without a train split, or one in which no
                two counts differ.
        """
        voxels = self.voxel_name(voxels)
        if STATS not in self.attributes["stages"][VOXELIZE + voxels]:
            raise StoreError(
                f"{self.place}: no statistics of {voxels!r}: it has no train split to take them from"
            )
        try:
            return normalization_from(self.nodes.find(f"{STATS}/{voxels}").attributes, transform)
        except ValueError as error:
            raise StoreError(
                f"{self.place}: all counts of {voxels!r} in the train split are equal: {error}"
            ) from error


def runs_of(positions: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Spans [start, stop) of indices over which `positions` go up by one at a time."""
    breaks = [i for i in range(1, len(positions)) if positions[i] != positions[i - 1] + 1]
    edges = [0, *breaks, len(positions)] if positions else [0]
    return tuple(itertools.pairwise(edges))


def open_store(path: Path, *, check: bool = True, hold: bool = True) -> Store:
    """Open a store whose ingest is finished, and check that every shard of every stage is there, at its size.

    Args:
        check: compare metadata digests and file sizes; only `spk inspect` of a damaged store goes without.
        hold: keep the generation that is opened from being deleted, as long as something of it is referenced.

    Raises:
        StoreError: no store there, unfinished, of another format version, or with files missing or changed.
    """
    path = local_folder(path)
    attributes, held = _read_and_hold(path) if hold else (read_root(path), None)
    if attributes is None:
        if (path / WORK).is_dir():
            raise StoreError(f"{place_of(path)}: its ingest did not finish", RESUME)
        raise StoreError(
            f"{place_of(path)}: no store here", f"spk ingest RAW -o {place_of(path)} --manifest NAME"
        )
    if type(attributes.get("name")) is not str or any(
        "sequences" not in r for r in attributes["stages"].values()
    ):
        raise StoreError(f"{path / 'zarr.json'}: not the root of a store as spk writes it", REPAIR)
    if INGEST not in attributes["stages"]:
        raise StoreError(f"{path}: its ingest did not finish", RESUME)
    store = Store(path, attributes, held)
    if check:
        for name in store.nodes.digests:
            if not store.nodes.is_whole_in_place(name):
                store.nodes.find_whole(name)
    return store


RESUME = "run the same spk ingest command again: it resumes"


def _read_and_hold(path: Path) -> tuple[dict[str, Any] | None, Hold | None]:
    while True:
        try:
            held = Hold(path)
            attributes = read_root(path)
            if held.is_of(path):
                return attributes, held
        except OSError:
            return read_root(path), None
