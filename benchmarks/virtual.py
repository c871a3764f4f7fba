"""Voxel grids that are counted when they are read, against grids that are stored raw: a spike crop, and bytes.

python benchmarks/virtual.py [FOLDER]

A training sample's crop of 128x128 pixels out of five frames and 32 bins, anywhere, turned as for training; spikes of
360x640 from integrate-and-fire pixels, in exposures of as many spike frames as the public data sets have. Everything is
in memory, and was verified before. Bytes are those of one frame's grids, which for virtual ones are not stored: the
spikes they are counted from are in the store either way.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rounds import medians
from pipeline.config import build
from pipeline.dat import write_dat
from pipeline.images import write_png
from pipeline.ingest import ingest
from pipeline.manifest import Manifest
from pipeline.simulation.camera import Sensor, SpikeCamera
from pipeline.simulation.textures import random_texture
from pipeline.spike_format import SpikeFormat
from pipeline.storage.selections import Selectable
from pipeline.store import Sequence, open_store
from pipeline.transforms import Augmentation, draw_augmentation
from pipeline.voxelize import voxelize

SPIKES, BINS, WINDOWS = (360, 640), 32, (88, 202, 660)
FRAMES, CLIP, CROP = 6, 5, 128
STORED, VIRTUAL = "stored", "virtual"
ROUNDS, READINGS = 15, 20
STEP = 4
"""Spike frames between two positions of the scene."""


def film(num_frames: int) -> Iterator[np.ndarray]:
    """Spikes of a textured scene gliding past, a few frames at a time."""
    rng = np.random.default_rng(0)
    texture = random_texture(rng, 1024, shapes=100).mean(0)
    sensor = Sensor(SpikeCamera(), SPIKES, rng)
    speed = rng.uniform(-0.5, 0.5, 2)
    for instant in range(0, num_frames, STEP):
        row, column = np.rint(speed * instant).astype(int) % 1024
        light = np.roll(texture, (row, column), (0, 1))[: SPIKES[0], : SPIKES[1]]
        yield sensor.integrate(np.repeat(light[None], STEP, axis=0))


def build_store(folder: Path, window: int) -> Sequence:
    """The one sequence of a store with exposures of `window` spike frames, one after the other, and both grids."""
    raw, shape = folder / "raw" / "train" / "s", SpikeFormat(height=SPIKES[0], width=SPIKES[1], rate_hz=20000)
    if not raw.is_dir():
        write_dat(raw / "spikes.dat", film(FRAMES * window), shape)
        for number in range(FRAMES):
            write_png(raw / "blurry" / f"{number}.png", np.zeros((3, *SPIKES), np.uint8))
    values = {
        "name": "benchmark",
        "layout": {
            "spikes": "{split}/{sequence}/spikes.dat",
            "blurry": "{split}/{sequence}/blurry/{frame}.png",
        },
        "spikes": {"height": SPIKES[0], "width": SPIKES[1], "rate_hz": 20000},
        "exposure": {"rule": "every", "window": window},
        "splits": {"train": {}},
    }
    ingest(folder / "raw", folder / "store", build(Manifest, values, "benchmark"))
    voxelize(folder / "store", num_bins=BINS, name=STORED)
    voxelize(folder / "store", num_bins=BINS, name=VIRTUAL, virtual=True)
    return open_store(folder / "store").sequence("train", "s")


def draws() -> Iterator[tuple[int, Augmentation]]:
    """Random clips without end: the first frame, and how it is cut and turned."""
    rng = np.random.default_rng(1)
    room = (SPIKES[0] - CROP, SPIKES[1] - CROP)
    while True:
        how = draw_augmentation(rng, room, flips=True, rotations=True, reversal=True)
        yield int(rng.integers(FRAMES - CLIP + 1)), how


def read(grids: Selectable, first: int, how: Augmentation) -> np.ndarray:
    """A crop into new memory, as the loader reads it."""
    counts = np.empty((CLIP, BINS, CROP, CROP), np.uint8)
    cut = (slice(first, first + CLIP), slice(None), *how.window(CROP, 1))
    grids.read_into(cut, how.unturned_voxels(counts))
    return counts


def compare(sequence: Sequence) -> dict[str, float]:
    """Median CPU seconds of a crop from either grids, which are seen to be equal."""
    grids = {name: sequence.voxels(name) for name in (STORED, VIRTUAL)}
    assert np.array_equal(grids[STORED][:], grids[VIRTUAL][:])  # which verifies every chunk
    for draw in itertools.islice(draws(), READINGS):
        assert np.array_equal(read(grids[STORED], *draw), read(grids[VIRTUAL], *draw))

    def turn(name: str) -> Callable[[], None]:
        several = list(itertools.islice(draws(), READINGS))

        def run() -> None:
            for draw in several:
                read(grids[name], *draw)

        return run

    seconds = medians({name: turn(name) for name in grids}, ROUNDS)
    return {name: value / READINGS for name, value in seconds.items()}


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    lines = [
        f"### Spike crop {CROP}, {CLIP} frames, {BINS} bins, of {SPIKES[0]}x{SPIKES[1]}",
        "",
        "| spike frames per window | stored, CPU ms | virtual, CPU ms | virtual over stored | bytes of a frame: stored "
        "| virtual | spikes | stored and spikes over virtual and spikes |",
        "| ---: |" + " ---: |" * 7,
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        for window in WINDOWS:
            sequence = build_store(folder / str(window), window)
            seconds = compare(sequence)
            stored, virtual = (
                bytes_of(sequence.path / "voxels" / name) / FRAMES for name in (STORED, VIRTUAL)
            )
            spikes = bytes_of(sequence.path / "spikes") / FRAMES
            ratio = seconds[VIRTUAL] / seconds[STORED]
            smaller = (stored + spikes) / (virtual + spikes)
            lines.append(
                f"| {window} | {1e3 * seconds[STORED]:.3f} | {1e3 * seconds[VIRTUAL]:.3f} | {ratio:.2f} "
                f"| {stored:,.0f} | {virtual:,.0f} | {spikes:,.0f} | {smaller:.2f} |"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
