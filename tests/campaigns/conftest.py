"""Small stores that the campaigns damage, and processes to build them in."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.voxelize import voxelize
from tests.campaigns.server import Server
from tests.campaigns.stores import Values, tree_of, values_of
from tests.campaigns.trainings import Trainings
from tests.campaigns.trials import STAGES, Made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("children"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def made(server: Server, tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str]) -> Made:
    folder = tmp_path_factory.mktemp("made")
    for number, name in enumerate(("raw", "other")):
        settings = [*small_scenes, "train=2", "val=0", "test=1"]
        server.here("simulate", "scenes", *settings, "-o", folder / name, "--seed", number)
    values: dict[str, Values] = {}
    trees: dict[str, dict[str, bytes | None]] = {}
    made = Made(folder, values, trees)
    for name, stage in STAGES.items():
        store = made.copy(stage.before, made.store(stage.after))
        server.here(*made.words(name, store))
        values[stage.after], trees[stage.after] = values_of(store), tree_of(store)
    return made


@pytest.fixture(scope="session")
def trainings(
    tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str], small_training: list[str]
) -> Iterator[Trainings]:
    """Trainings of eight steps; a store with voxel grids, and a process that has loaded torch."""
    folder = tmp_path_factory.mktemp("trainings")
    raw, store = folder / "raw", folder / "store"
    simulate_scenes(raw, from_overrides(SceneConfig, small_scenes))
    ingest(raw, store, read_manifest("simulated"), workers=1)
    voxelize(store, num_bins=4, workers=1)
    server = Server(folder)
    for module in ("model.train", "torch._dynamo"):  # the second is what an optimizer imports when it is made
        server.load(module)
    often = ["steps=8", "batch_size=1", "checkpoint_every=3", "validate_every=4", "sample_every=0"]
    yield Trainings(server, store, (*small_training, *often))
    server.close()


@pytest.fixture
def tries(tmp_path: Path) -> Callable[[], Path]:
    """Places for the store of each trial; that of the one before is removed."""
    numbers = iter(range(1 << 30))

    def next_place() -> Path:
        shutil.rmtree(tmp_path / "try", ignore_errors=True)
        place = tmp_path / "try" / str(next(numbers))
        place.parent.mkdir()
        return place

    return next_place
