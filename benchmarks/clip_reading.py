"""Reading one training sample (5 frames, 32 bins): our maps against what else there is. Everything is in memory.

python benchmarks/clip_reading.py [FOLDER]

Spikes alone: the crop out of voxel grids, against a `.npy` of the same uint8 counts that is kept open as a memory map.
Whole sample: that, and crops of twice the side out of five blurry and five sharp frames; the baseline is one PNG per
frame and one float32 `.npy` per voxel grid. Checksums are verified when a chunk is first touched: what that costs is
told apart, as the first epoch after opening a store, and as ten epochs with the first.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.recording import COMPRESSED_GRIDS, RAW_GRIDS, RGB, SPIKES, build_store
from benchmarks.rounds import medians
from pipeline.clips import ClipConfig, ClipSource
from pipeline.images import read_rgb
from pipeline.storage.mapped import MappedArray, forget_maps
from pipeline.store import Sequence, Store, open_store

SEQUENCES, FRAMES, CLIP, SCALE = 2, 12, 5, 2
KINDS = ("counts", "blurry", "sharp")
ROUNDS = 11
EPOCHS = 10
Selection = tuple[slice, ...]


def selections(spike_crop: int) -> Iterator[tuple[str, Selection, Selection]]:
    """Random clips without end: a sequence, and where its spikes and its frames are cut."""
    rng = np.random.default_rng(1)
    while True:
        sequence = f"s{rng.integers(SEQUENCES)}"
        first = int(rng.integers(FRAMES - CLIP + 1))
        row, column = (int(rng.integers(size - spike_crop + 1)) for size in SPIKES)
        yield (
            sequence,
            *(
                (
                    slice(first, first + CLIP),
                    slice(None),
                    slice(scale * row, scale * (row + spike_crop)),
                    slice(scale * column, scale * (column + spike_crop)),
                )
                for scale in (1, SCALE)
            ),
        )


class Arrays:
    """From arrays that take slices, with a copy of what they give: memory maps, zarr-python."""

    def __init__(self, arrays: dict[str, list[object]]) -> None:
        self.arrays = arrays

    def __call__(self, sequence: str, spikes: Selection, rgb: Selection) -> list[np.ndarray]:
        cuts = (spikes, rgb, rgb)
        return [np.array(array[cut]) for array, cut in zip(self.arrays[sequence], cuts, strict=False)]


class Maps(Arrays):
    """From our maps, into new memory."""

    def __call__(self, sequence: str, spikes: Selection, rgb: Selection) -> list[np.ndarray]:
        read = []
        for array, cut in zip(self.arrays[sequence], (spikes, rgb, rgb), strict=False):
            shape = [
                part.indices(size)[1] - part.indices(size)[0]
                for part, size in zip(cut, array.shape, strict=True)
            ]
            read.append(np.empty(shape, np.uint8))
            array.read_into(cut, read[-1])
        return read


class Files:
    """From one PNG per frame and one float32 .npy per voxel grid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, sequence: str, spikes: Selection, rgb: Selection) -> list[np.ndarray]:
        raw = self.folder / "raw" / "train" / sequence
        numbers = range(spikes[0].start, spikes[0].stop)
        voxels = [np.load(self.folder / f"{sequence}_{n}.npy")[spikes[1:]] for n in numbers]
        pictures = [
            np.stack([read_rgb(raw / kind / f"{n:04d}.png")[rgb[1:]] for n in numbers])
            for kind in ("blurry", "sharp")
        ]
        return [np.stack(voxels), *pictures]


_PER_TURN = {Maps: 10, Arrays: 3, Files: 1}


def arrays_of(sequence: Sequence, grids: str) -> list[MappedArray]:
    assert sequence.blurry and sequence.sharp
    return [sequence.voxels(grids), sequence.blurry, sequence.sharp]


def sequence_arrays(store: Store, grids: str, parts: int, opened: Callable[[Path], object] | None) -> dict:
    """The first `parts` of voxel grids, blurry and sharp frames of every sequence: ours, or opened otherwise."""
    found = {}
    for sequence in store.sequences("train"):
        ours = arrays_of(sequence, grids)[:parts]
        found[sequence.path.name] = [opened(array.path) for array in ours] if opened else ours
    return found


def per_sample(readers: dict[str, Callable], spike_crop: int) -> dict[str, float]:
    """Median CPU seconds of a sample. All read the same clips; quick readers read more of them in a turn."""
    expected, *others = (
        [reader(*cut) for cut in itertools.islice(selections(spike_crop), 3)] for reader in readers.values()
    )
    for found in others:
        assert all(
            np.array_equal(a, b)
            for x, y in zip(expected, found, strict=True)
            for a, b in zip(x, y, strict=True)
        )
    counts = {name: _PER_TURN[type(reader)] for name, reader in readers.items()}

    def turn(name: str) -> Callable[[], None]:
        cuts = selections(spike_crop)

        def run() -> None:
            for cut in itertools.islice(cuts, counts[name]):
                readers[name](*cut)

        return run

    seconds = medians({name: turn(name) for name in readers}, ROUNDS)
    return {name: value / counts[name] for name, value in seconds.items()}


def epochs(store: Store, source: ClipSource) -> tuple[float, float, float]:
    """CPU seconds of a sample in the first epoch after opening, in later ones, and in all: medians."""
    rounds = []
    for number in range(7):
        forget_maps(store.path)
        times = [time.process_time()]
        for epoch in range(EPOCHS):
            first = (number * EPOCHS + epoch) * len(source)
            for n in range(first, first + len(source)):
                source.batch(range(n, n + 1), seed=0)
            times.append(time.process_time())
        spent = np.diff(times) / len(source)
        rounds.append((spent[0], spent[1:].mean(), spent.mean()))
    first, later, together = (statistics.median(column) for column in zip(*rounds, strict=True))
    return first, later, together


def report(title: str, seconds: dict[str, float], ours: tuple[str, ...]) -> str:
    lines = [
        f"### {title}",
        "",
        "| variant | CPU ms per sample | " + " | ".join(f"over {o}" for o in ours) + " |",
    ]
    lines.append("| --- | ---: |" + " ---: |" * len(ours))
    for name, value in seconds.items():
        ratios = " | ".join(f"{value / seconds[o]:.2f}" for o in ours)
        lines.append(f"| {name} | {1e3 * value:.3f} | {ratios} |")
    return "\n".join(lines) + "\n\n"


def compare(folder: Path, store: Store, spike_crop: int) -> None:
    names = {"ours, raw": RAW_GRIDS, "ours, lz4": COMPRESSED_GRIDS}
    spikes = {name: Maps(sequence_arrays(store, grids, 1, None)) for name, grids in names.items()}
    maps = {
        f"s{n}": [np.load(folder / f"s{n}_{kind}.npy", mmap_mode="r") for kind in KINDS]
        for n in range(SEQUENCES)
    }
    spikes["memory map of a .npy"] = Arrays({name: of_kinds[:1] for name, of_kinds in maps.items()})
    title = f"Spike crop {spike_crop}, {CLIP} frames, 32 bins"
    sys.stdout.write(report(title, per_sample(spikes, spike_crop), tuple(names)))

    whole: dict[str, Callable] = {
        name: Maps(sequence_arrays(store, grids, 3, None)) for name, grids in names.items()
    }
    for name, grids in {"zarr-python, raw": RAW_GRIDS, "zarr-python, lz4": COMPRESSED_GRIDS}.items():
        opened = sequence_arrays(store, grids, 3, lambda path: zarr.open_array(path, mode="r"))
        whole[name] = Arrays(opened)
    whole["memory maps of uint8 .npy"] = Arrays(maps)
    whole["PNG and float32 .npy"] = Files(folder)
    seconds = per_sample(whole, spike_crop)
    config = ClipConfig(num_frames=CLIP, crop=SCALE * spike_crop)
    for name, grids in names.items():
        first, later, together = epochs(store, ClipSource(store, "train", grids, config))
        seconds[f"{name}: clip loader, turned at random, first epoch"] = first
        seconds[f"{name}: clip loader, turned at random, later epochs"] = later
        seconds[f"{name}: clip loader, turned at random, {EPOCHS} epochs with the first"] = together
    title = f"Whole sample: spike crop {spike_crop}, RGB pairs {SCALE * spike_crop}"
    sys.stdout.write(report(title, seconds, tuple(names)))
    baseline = seconds["PNG and float32 .npy"]
    for name in seconds:
        if name.startswith("ours"):
            sys.stdout.write(
                f"PNG and float32 .npy take {baseline / seconds[name]:.0f} times as long as {name}\n"
            )
    sys.stdout.write("\n")


def prepare(folder: Path) -> Store:
    """The store, and the same counts as one uint8 .npy per sequence and one float32 .npy per grid."""
    if (folder / "ready").exists():
        return open_store(folder / "store")
    store = build_store(folder, sequences=SEQUENCES, frames=FRAMES)
    for sequence in store.sequences("train"):
        counts, *frames = (array[:] for array in arrays_of(sequence, RAW_GRIDS))
        for kind, values in zip(KINDS, (counts, *frames), strict=True):
            np.save(folder / f"{sequence.path.name}_{kind}.npy", values)
        for number, grid in enumerate(counts):
            np.save(folder / f"{sequence.path.name}_{number}.npy", grid.astype(np.float32))
    (folder / "ready").touch()
    return store


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = prepare(folder)
        sys.stdout.write(f"Frames of {RGB[0]}x{RGB[1]}, spikes of {SPIKES[0]}x{SPIKES[1]}\n\n")
        for spike_crop in (128, 256):
            compare(folder, store, spike_crop)


if __name__ == "__main__":
    main()
