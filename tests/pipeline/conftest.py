"""Small recordings on disk, and slow plain readings of them to compare the store with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import build
from pipeline.dat import write_dat
from pipeline.images import write_png
from pipeline.logs.timestamps import write_log
from pipeline.manifest import Manifest
from pipeline.spike_format import SpikeFormat

HEIGHT, WIDTH, SCALE, RATE = 18, 20, 2, 1000
SPANS = ((0, 11), (11, 52), (60, 64))
"""In 8 bins: not a multiple, not a multiple, and fewer frames than bins."""


def spike_manifest(**changes: object) -> Manifest:
    values = {
        "name": "made",
        "layout": {
            "spikes": "{split}/{sequence}/spikes.dat",
            "blurry": "{split}/{sequence}/blurry/{frame}.png",
            "sharp": "{split}/{sequence}/sharp/{frame}.png",
            "log": "{split}/{sequence}/exposures.csv",
        },
        "spikes": {"height": HEIGHT, "width": WIDTH, "rate_hz": RATE},
        "exposure": {"rule": "log", "dialect": "csv"},
        "splits": {"train": {}, "test": {}},
        "missing_sharp": "test_only",
    }
    return build(Manifest, values | changes, "test")


@dataclass(frozen=True)
class RawSet:
    """A data set on disk and what is in it, by "split/sequence"."""

    root: Path
    spans: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    manifest: Manifest = field(default_factory=spike_manifest)

    def add(self, key: str, seed: int, spans: Sequence[tuple[int, int]] = SPANS) -> None:
        """Make one sequence: `spans` are its exposures, and its recording is 70 spike frames or what they need."""
        rng = np.random.default_rng(seed)
        folder, num_frames = self.root / key, max(70, *(b for _, b in spans))
        rate = np.linspace(0.1, 0.9, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
        spikes = (rng.random((num_frames, HEIGHT, WIDTH)) < rate).astype(np.uint8)
        write_dat(folder / "spikes.dat", spikes, SpikeFormat(height=HEIGHT, width=WIDTH, rate_hz=RATE))
        names = [f"{k:03d}" for k in range(len(spans))]
        for name in names:
            for kind in ("blurry", "sharp"):
                image = rng.integers(0, 256, (3, HEIGHT * SCALE, WIDTH * SCALE), np.uint8)
                write_png(folder / kind / f"{name}.png", image)
        ns = [(a * 1_000_000, b * 1_000_000) for a, b in spans]
        write_log(folder / "exposures.csv", names, [a for a, _ in ns], [b for _, b in ns])
        self.spans[key] = tuple(spans)

    def spikes(self, key: str) -> np.ndarray:
        """(T, H, W) zeros and ones, read from the file without this project's code."""
        return plain_spikes(self.root / key / "spikes.dat", HEIGHT, WIDTH)

    def counts(self, key: str, num_bins: int) -> np.ndarray:
        return np.stack([plain_counts(self.spikes(key)[a:b], num_bins) for a, b in self.spans[key]])


def plain_spikes(path: Path, height: int, width: int) -> np.ndarray:
    bits = np.unpackbits(np.fromfile(path, np.uint8), bitorder="little")
    return np.stack([np.flipud(frame) for frame in bits.reshape(-1, height, width)])


def plain_counts(frames: np.ndarray, num_bins: int) -> np.ndarray:
    """(K, H, W): frame j of n is counted in bin floor(j * K / n), one by one."""
    counts = np.zeros((num_bins, *frames.shape[1:]), np.uint8)
    for j in range(len(frames)):
        counts[(j * num_bins) // len(frames)] += frames[j]
    return counts


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Manifest]:
    return spike_manifest


@pytest.fixture
def raw(tmp_path: Path) -> RawSet:
    """Two train sequences and a test sequence."""
    return _three(tmp_path / "raw")


@pytest.fixture(scope="module")
def shared_raw(tmp_path_factory: pytest.TempPathFactory) -> RawSet:
    """The same for tests that only read it."""
    return _three(tmp_path_factory.mktemp("shared") / "raw")


def _three(root: Path) -> RawSet:
    made = RawSet(root)
    for seed, key in enumerate(("train/a", "train/b", "test/c")):
        made.add(key, seed)
    return made


@pytest.fixture(scope="session")
def tree_of() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, with its bytes."""
    return lambda root: {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="session")
def content_of(tree_of: Callable[[Path], dict[str, bytes]]) -> Callable[[Path], dict[str, bytes]]:
    """Every file of a store without what tells of its past: how many generations there were, who reads them."""

    def content(store: Path) -> dict[str, bytes]:
        root = json.loads((store / "zarr.json").read_bytes())
        for name in ("generation", "checksum"):
            del root["attributes"][name]
        files = {name: data for name, data in tree_of(store).items() if not name.startswith(".spk/")}
        return files | {"zarr.json": json.dumps(root).encode()}

    return content


@pytest.fixture(scope="session")
def times_of() -> Callable[[Path], dict[str, int]]:
    """Every file and folder below a folder, with its time of change."""
    return lambda root: {str(path): path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}


@pytest.fixture(scope="session")
def plain() -> Callable[[np.ndarray, int], np.ndarray]:
    return plain_counts


@pytest.fixture(scope="session")
def read_plainly() -> Callable[[Path, int, int], np.ndarray]:
    return plain_spikes
