"""Reading one training sample (5 frames, 32 bins, RGB crop 256, spike crop 128): our maps against what else there is.

python benchmarks/clip_reading.py
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rounds import medians, table
from pipeline.images import read_rgb, write_png
from pipeline.storage.building import ArrayJob, StoreBuilder
from pipeline.storage.mapped import MappedArray
from pipeline.storage.pieces import WholeBlock, build_piece
from pipeline.storage.shards import Region, frames_layout

FRAMES, BINS, CLIP = 24, 32, 5
RGB, SPIKES = (720, 1280), (360, 640)
CROP, SPIKE_CROP = 256, 128
NAMES = ("frame", "channel", "row", "column")


class Values:
    """An array as a source of blocks."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def open(self, region: Region) -> WholeBlock:
        return WholeBlock(region, self.values[region])


def build(folder: Path) -> None:
    """The same blurry frames, sharp frames and counts as a store of ours, and as PNG and float32 files."""
    rng = np.random.default_rng(0)
    photo = np.add.outer(np.arange(RGB[0]), np.arange(RGB[1])) // 8 % 256
    frames = {
        kind: (photo + rng.integers(0, 8, (FRAMES, 3, *RGB))).astype(np.uint8) for kind in ("blurry", "sharp")
    }
    counts = rng.poisson(0.5, (FRAMES, BINS, *SPIKES)).clip(0, 3).astype(np.uint8)
    arrays = frames | {"voxels": counts}
    with StoreBuilder(folder / "store", "benchmark", None) as builder:
        jobs = [
            ArrayJob(
                array=folder / "store" / name,
                layout=frames_layout(values.shape, NAMES),
                source=Values(values),
                inputs=name,
            )
            for name, values in arrays.items()
        ]
        builder.build(jobs, lambda pieces: [build_piece(piece) for piece in pieces])
    for number in range(FRAMES):
        for kind, values in frames.items():
            write_png(folder / f"{kind}_{number}.png", values[number])
        np.save(folder / f"voxels_{number}.npy", counts[number].astype(np.float32))


class Reader:
    """Reads the next of a fixed row of random clips, as (blurry, sharp, voxels)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        first = rng.integers(0, FRAMES - CLIP + 1, 64)
        row, column = (rng.integers(0, size - SPIKE_CROP + 1, 64) for size in SPIKES)
        self.clips = itertools.cycle(list(zip(first.tolist(), row.tolist(), column.tolist(), strict=True)))

    def slices(self) -> tuple[slice, tuple[slice, slice], tuple[slice, slice]]:
        first, row, column = next(self.clips)
        spikes = slice(row, row + SPIKE_CROP), slice(column, column + SPIKE_CROP)
        rgb = slice(2 * row, 2 * row + CROP), slice(2 * column, 2 * column + CROP)
        return slice(first, first + CLIP), rgb, spikes


class ArrayReader(Reader):
    """From arrays that take slices: our maps, or zarr-python."""

    def __init__(self, arrays: dict[str, object]) -> None:
        super().__init__()
        self.arrays = arrays

    def __call__(self) -> list[np.ndarray]:
        frames, rgb, spikes = self.slices()
        crops = {"blurry": rgb, "sharp": rgb, "voxels": spikes}
        return [np.array(self.arrays[name][(frames, slice(None), *crop)]) for name, crop in crops.items()]


class FileReader(Reader):
    """From PNG and float32 .npy files, one per frame."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __call__(self) -> list[np.ndarray]:
        frames, rgb, spikes = self.slices()
        numbers = range(frames.start, frames.stop)
        read = [
            np.stack([read_rgb(self.folder / f"{kind}_{n}.png")[(slice(None), *rgb)] for n in numbers])
            for kind in ("blurry", "sharp")
        ]
        voxels = [np.load(self.folder / f"voxels_{n}.npy")[(slice(None), *spikes)] for n in numbers]
        return [*read, np.stack(voxels)]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        names = ("blurry", "sharp", "voxels")
        readers = {
            "ours": ArrayReader({name: MappedArray(folder / "store" / name) for name in names}),
            "zarr-python, same store": ArrayReader(
                {name: zarr.open_array(folder / "store" / name, mode="r") for name in names}
            ),
            "PNG and float32 .npy": FileReader(folder),
        }
        ours, *others = ([part.astype(int) for part in reader()] for reader in readers.values())
        assert all(np.array_equal(a, b) for other in others for a, b in zip(ours, other, strict=True))
        sys.stdout.write(table("One training sample", medians(readers, rounds=15), "ours"))


if __name__ == "__main__":
    main()
