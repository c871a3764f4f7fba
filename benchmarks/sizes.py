"""Bytes of one training sample and of voxel grids, against the same as float32.

python benchmarks/sizes.py [SHARED_DATA]

Stores are built by ingest and voxelize from generated integrate-and-fire recordings, noiseless as the public data sets
are and noisy as cameras are, and from the real GoPro spikes in SHARED_DATA (../shared/data) where they are; the files
of each array are counted, their checksums and metadata included. One window is 88 spike frames of 360x640 in 32 bins.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.storage.root import STATS
from pipeline.storage.shards import Codec
from pipeline.store import open_store
from pipeline.voxelize import voxelize

BINS, WINDOW, SPIKES, RGB = 32, 88, (360, 640), (720, 1280)
FLOAT32 = 4
GRID_FLOAT32 = BINS * SPIKES[0] * SPIKES[1] * FLOAT32
SAMPLE_FLOAT32 = (2 * 3 + BINS) * RGB[0] * RGB[1] * FLOAT32
"""140,083,200 bytes, or 133.6 MiB: blurry and sharp frame and 32 bins, all float32 at the size of the RGB frame."""
SCENES = (
    *("train=2", "val=0", "test=0", "height=720", "width=1280", "objects=[6,9]", "object_radius=[40,100]"),
    *("object_speed=[20,60]", "background_speed=[10,40]"),
    *("rig.num_frames=3", f"rig.exposure_frames={WINDOW}", "rig.scale=2", "rig.rate_hz=1920"),
)
NOISELESS = ("rig.camera.shot_noise=0", "rig.camera.dark_noise=0", "rig.camera.gain_spread=0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """A store, and what its arrays take up for one frame, in bytes."""

    name: str
    pair: float | None
    spikes: float
    grids: dict[str, float]
    rule: float


def main() -> None:
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared" / "data")
    with tempfile.TemporaryDirectory() as folder:
        stores = list(recorded(Path(folder), shared))
    sys.stdout.write(sample_table(next(one for one in stores if one.pair is not None)) + "\n")
    sys.stdout.write(grid_table(stores))


def recorded(folder: Path, shared: Path) -> Iterator[Recorded]:
    for name, noise in (("generated, noiseless", NOISELESS), ("generated, noisy", ())):
        raw = folder / f"raw {name}"
        simulate_scenes(raw, from_overrides(SceneConfig, [*SCENES, *noise]), seed=7)
        yield count(folder / f"store {name}", name, raw, "simulated")
    if (shared / "gopro_spike_pair").is_dir():
        yield count(folder / "gopro", "GoPro", shared / "gopro_spike_pair", "gopro_pair")


def count(store: Path, name: str, raw: Path, manifest: str) -> Recorded:
    """Build a store and count its bytes for each frame."""
    ingest(raw, store, read_manifest(manifest, []))
    for codec in get_args(Codec):
        voxelize(store, num_bins=BINS, name=codec, codec=codec)
    opened = open_store(store)
    sequences = [opened.sequence(*key) for key in opened.sequence_keys]
    frames = sum(sequence.num_frames for sequence in sequences)
    window = sequences[0].exposure[0]
    assert sequences[0].spike_shape == SPIKES and window[1] - window[0] == WINDOW

    def per_frame(*names: str) -> float:
        return sum(bytes_below(sequence.path / array) for sequence in sequences for array in names) / frames

    spike_frames = sum(len(sequence.spikes) for sequence in sequences)
    rules = [sequence.path / "voxels" / "none" / "zarr.json" for sequence in sequences]
    statistics = bytes_below(store / STATS / "none")
    return Recorded(
        name=name,
        pair=None if manifest == "gopro_pair" else per_frame("blurry", "sharp"),
        spikes=per_frame("spikes") * frames / spike_frames * WINDOW,
        grids={codec: per_frame(f"voxels/{codec}") for codec in get_args(Codec)},
        rule=(sum(file.stat().st_size for file in rules) + statistics) / frames,
    )


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sample_table(one: Recorded) -> str:
    """A Markdown table: one sample as float32 at RGB resolution, and as the store has it."""
    assert one.pair is not None
    raw, small = (one.pair + one.grids[codec] for codec in ("none", "zstd"))
    rows = {
        "blurry, sharp and 32 bins, float32 at 720x1280": SAMPLE_FLOAT32,
        "ours: RGB as uint8, counts as uint8 at 360x640": raw,
        "ours, and the packed spikes of its 88 frames": raw + one.spikes,
        "ours, counts as zstd": small,
        "ours, grids virtual: RGB, packed spikes, rule": one.pair + one.spikes + one.rule,
    }
    lines = [
        "### One sample: 720p pair and 32 bins",
        "",
        "| layout | MB | of float32 |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {name} | {held / 1e6:.1f} | 1/{SAMPLE_FLOAT32 / held:.1f} |" for name, held in rows.items()]
    return "\n".join(lines) + "\n"


def grid_table(stores: list[Recorded]) -> str:
    """A Markdown table: the voxel grid of one window in each way of keeping it, relative to float32."""
    rows = {
        "float32": {one.name: float(GRID_FLOAT32) for one in stores},
        "uint8 (`--codec none`)": {one.name: one.grids["none"] for one in stores},
        "`--codec lz4`": {one.name: one.grids["lz4"] for one in stores},
        "`--codec zstd`": {one.name: one.grids["zstd"] for one in stores},
        "`--virtual`, beside the spikes: rule and statistics": {one.name: one.rule for one in stores},
        "`--virtual`, the spikes counted in": {one.name: one.rule + one.spikes for one in stores},
    }
    names = [one.name for one in stores]
    lines = [
        f"### Voxel grid of {WINDOW} frames of 360x640, {BINS} bins: {GRID_FLOAT32 / 1e6:.1f} MB as float32",
        "",
    ]
    lines += [f"| kept as | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for name, held in rows.items():
        lines.append(f"| {name} | {' | '.join(_share(held[one]) for one in names)} |")
    return "\n".join(lines) + "\n"


def _share(held: float) -> str:
    return f"1/{GRID_FLOAT32 / held:,.1f}"


if __name__ == "__main__":
    main()
