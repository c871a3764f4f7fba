"""Damaged stores: put right to the byte where the recordings are at hand, refused and left alone where not."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.damage import CHANGES, flip
from tests.campaigns.server import Ended, Server
from tests.campaigns.stores import differences, files_of, tree_of, values_of
from tests.campaigns.trials import Made

SEED = 20261130
SMALL, FULL = 12, 300
SMALL_METADATA, FULL_METADATA = 8, 150
NOT_REPAIRED = 4
DERIVED = ("voxels/", "stats/")
"""What is made of other arrays of the store, and needs no recordings to be made again."""


@dataclass(frozen=True)
class Source:
    """Recordings, and a store made of them, which tests spoil and put back."""

    raw: Path
    store: Path
    tree: dict[str, bytes | None]

    def restore(self) -> None:
        """Make the store as it was."""
        shutil.rmtree(self.store)
        for name, data in self.tree.items():
            place = self.store / name
            if data is None:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)


@pytest.fixture(scope="module")
def source(made: Made, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("source")
    raw, store = shutil.copytree(made.raw, folder / "raw"), folder / "store"
    for words in (
        ["ingest", raw, "-o", store, "-m", "simulated"],
        ["voxelize", store, "--bins", 4],
        ["voxelize", store, "--bins", 3, "--codec", "zstd", "--name", "packed"],
    ):
        assert server.run(*words).code == 0
    return Source(raw, store, tree_of(store))


def shards(store: Path) -> list[Path]:
    return [path for path in files_of(store) if "/c/" in path.as_posix()]


def metadata(store: Path) -> list[Path]:
    return [path for path in files_of(store) if path.name == "zarr.json"]


def spoil(files: list[Path], rng: np.random.Generator) -> tuple[str, list[Path]]:
    """Damage one file in one of all the ways; what was done, and to which files."""
    path = files[int(rng.integers(len(files)))]
    kinds = ["a bit flipped", *CHANGES]
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind in CHANGES:
        return kind, CHANGES[kind](path, files, rng)
    data = path.read_bytes()
    path.write_bytes(flip(data, int(rng.integers(8 * len(data)))))
    return kind, [path]


Trial = tuple[str, list[str], list[str], list[str], Ended]
"""The damage, its files, what differs after the repair from the damaged and from the whole store, how it ended."""


def repair_often(
    source: Source, server: Server, files_in: Callable[[Path], list[Path]], count: int, *words: object
) -> list[Trial]:
    """Damage the store and repair it, `count` times."""
    rng, trials = np.random.default_rng(SEED), []
    for _ in range(count):
        kind, paths = spoil(files_in(source.store), rng)
        names = [str(path.relative_to(source.store)) for path in paths]
        damaged = tree_of(source.store)
        ended = server.run("repair", source.store, *words)
        left = tree_of(source.store)
        trials.append((kind, names, differences(left, damaged), differences(left, source.tree), ended))
        if left != source.tree:
            source.restore()
    return trials


@pytest.mark.parametrize(
    ("what", "count"),
    [
        (shards, SMALL),
        (metadata, SMALL_METADATA),
        pytest.param(shards, FULL, marks=pytest.mark.slow),
        pytest.param(metadata, FULL_METADATA, marks=pytest.mark.slow),
    ],
)
def test_damage_is_repaired_to_the_byte(what, count, source, server, campaign):
    trials = repair_often(source, server, what, count, "--raw", source.raw)
    wrong = [trial for trial in trials if trial[-1].code or trial[3]]
    campaign(f"repair of {what.__name__}", n=count, repaired=count - len(wrong), seed=SEED)
    assert wrong == []
    assert values_of(source.store)


@pytest.fixture(params=["gone", "changed", "changed behind our back"])
def spoiled_raw(request: pytest.FixtureRequest, source: Source, tmp_path: Path) -> str:
    """The recordings are not what they were when the store was built."""
    kept = shutil.copytree(source.raw, tmp_path / "kept")
    request.addfinalizer(lambda: (shutil.rmtree(source.raw, ignore_errors=True), kept.rename(source.raw)))
    if request.param == "gone":
        shutil.rmtree(source.raw)
        return str(request.param)
    rng = np.random.default_rng(SEED)
    for path in [path for path in files_of(source.raw) if path.suffix in (".dat", ".png")]:
        state, data = path.stat(), path.read_bytes()
        path.write_bytes(flip(data, int(rng.integers(8 * len(data) // 2, 8 * len(data)))))
        if request.param != "changed":
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return str(request.param)


def wrongly_repaired(trials: list[Trial]) -> list[Trial]:
    """Trials that ended with other bytes than the damaged ones or the right ones, or told otherwise than it was."""
    wrong = []
    for trial in trials:
        *_, from_damaged, from_whole, ended = trial
        repaired = ended.code == 0 and not from_whole
        refused = ended.code == NOT_REPAIRED and not from_damaged and not ended.crashed
        if not (repaired or refused):
            wrong.append(trial)
    return wrong


@pytest.mark.parametrize("count", [SMALL // 2, pytest.param(FULL // 3, marks=pytest.mark.slow)])
def test_repair_without_the_recordings_is_refused(count, spoiled_raw, source, server, campaign):
    trials = repair_often(source, server, recorded, count)
    wrong = wrongly_repaired(trials)
    repaired = [trial for trial in trials if trial[-1].code == 0]
    campaign(
        f"repair, recordings {spoiled_raw}", n=count, refused=count - len(repaired) - len(wrong), seed=SEED
    )
    assert wrong == []
    # One flipped bit may lie in a shard other than the one to repair, or beyond the pixels that an image has.
    assert spoiled_raw == "changed behind our back" or not repaired


def recorded(store: Path) -> list[Path]:
    """Shards of what is not in the store a second time in another form."""
    return [
        path for path in shards(store) if path.parts[len(store.parts) + 2] in ("spikes", "blurry", "sharp")
    ]


@pytest.mark.parametrize("count", [SMALL // 2, pytest.param(FULL // 3, marks=pytest.mark.slow)])
def test_what_is_derived_is_repaired_from_the_store_alone(count, source, server, campaign):
    raw = source.raw.rename(source.raw.with_name("elsewhere"))
    try:
        trials = repair_often(source, server, derived, count)
    finally:
        raw.rename(source.raw)
    wrong = [trial for trial in trials if trial[-1].code or trial[3]]
    campaign("repair of voxel grids, no recordings", n=count, repaired=count - len(wrong), seed=SEED)
    assert wrong == []


def derived(store: Path) -> list[Path]:
    return [path for path in shards(store) if path.parts[len(store.parts) + 2] == "voxels"]
