from dataclasses import replace
from pathlib import Path

import pytest

from model.cost import ClipSize, count_flops
from model.planning import survey as module
from model.planning.device import device_of
from model.planning.survey import survey
from model.training.config import TrainConfig
from pipeline.config import from_overrides, load_config
from pipeline.errors import UsageError
from pipeline.ingest import ingest
from pipeline.machine import Processors
from pipeline.manifest import read_manifest
from pipeline.reports import no_progress
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import open_store
from pipeline.voxelize import voxelize


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READING_S", 0.01)
    monkeypatch.setattr(module, "processors", lambda: Processors(count=4, usable=4, quota=None))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    simulate_scenes(folder / "raw", from_overrides(SceneConfig, small_scenes))
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=4, workers=1)
    return folder / "store"


@pytest.fixture
def config(store: Path, small_training: list[str]) -> TrainConfig:
    tiny = Path(__file__).parents[3] / "configs" / "tiny.yaml"
    return load_config(TrainConfig, tiny, [*small_training, f"store={store}"])


def test_knows_the_run_beforehand(config: TrainConfig, tmp_path: Path) -> None:
    seen = []
    config = replace(config, optim=replace(config.optim, flow_freeze_steps=2), batch_size=3)
    found = survey(config, tmp_path / "run", progress=lambda *what: seen.append(what))
    assert found.config == replace(config, voxels="k4")
    assert found.device == device_of("cpu") and 0 < found.free_bytes <= found.device.total_bytes
    assert list(found.clips_per_s) == [1, 2, 4] and min(found.clips_per_s.values()) > 0
    assert found.validated == (2, 1)  # one sequence of three frames, in clips of two
    assert (found.num_clips, found.scale) == (4, 1)
    assert found.store["fingerprint"] == open_store(config.store).fingerprint
    (need,) = found.needs
    assert (need.clip, need.clips) == (config.clip, 3)
    size = ClipSize(batch=1, frames=2, crop=16, num_bins=4)
    assert need.forward_flops == count_flops(config.network, size, backward=False).of("")
    assert need.activations.peak_bytes() > 0
    assert seen[-1][:2] == (5, 5) and not (tmp_path / "run").exists()


def test_finds_what_training_would_refuse(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"clip\.crop=64"):
        survey(replace(config, clip=replace(config.clip, crop=64)), tmp_path / "run", progress=no_progress)


def test_a_run_without_validation_validates_nothing(config: TrainConfig) -> None:
    store = open_store(config.store)
    assert module._validated(replace(config, validate_every=0), store) == (0, 0)
    assert module._validated(replace(config, validate_clips=None), store) == (2, 1)
