"""A small data set at each stage, made once; commands that change one get a copy."""

import shutil
from pathlib import Path

import pytest

from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.voxelize import voxelize


@pytest.fixture(scope="session")
def made_raw(tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str]) -> Path:
    """Simulated recordings, not to be changed."""
    raw = tmp_path_factory.mktemp("made") / "raw"
    simulate_scenes(raw, from_overrides(SceneConfig, small_scenes))
    return raw


@pytest.fixture
def raw(made_raw: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(made_raw, tmp_path / "raw"))


@pytest.fixture(scope="session")
def store(made_raw: Path) -> Path:
    """Their store with voxel grids, not to be changed."""
    path = made_raw.parent / "store"
    ingest(made_raw, path, read_manifest("simulated"), workers=1)
    voxelize(path, num_bins=4, workers=1)
    return path


@pytest.fixture(scope="session")
def trained(store: Path, small_training: list[str]) -> Path:
    """The folder of a finished run on it, not to be changed."""
    from cli.presets import config_path
    from model.train import train
    from model.training.config import TrainConfig
    from pipeline.config import load_config

    config = load_config(TrainConfig, config_path(Path("tiny")), [*small_training, f"store={store}"])
    return train(config, store.parent / "run").run
