from pathlib import Path

import pytest

from model.losses import LossConfig
from model.network import NetworkConfig
from model.training.config import TrainConfig
from pipeline.clips import ClipConfig
from pipeline.config import load_config, to_plain
from pipeline.errors import ConfigError
from pipeline.yaml_files import dump_yaml

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["tiny", "base", "rgb_only", "vrt_gopro"])
def test_the_presets_are_valid(name: str) -> None:
    found = load_config(TrainConfig, CONFIGS / f"{name}.yaml", ["store=somewhere"])
    assert (found.network.fusion == "none") == (name in ("rgb_only", "vrt_gopro"))
    if name == "base":
        assert found.network == NetworkConfig() and found.loss == LossConfig() and found.clip == ClipConfig()
    if name == "vrt_gopro":
        assert found.loss.charbonnier_delta**2 == pytest.approx(1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"max_skipped": 0},
        {"seed": -1},
        {"validate_crop": 8},
        {"validate_clips": 0},
    ],
)
def test_refuses_settings_out_of_range(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrainConfig(store=Path("store"), **changes)


@pytest.mark.parametrize("name", ["tiny", "base", "vrt_gopro"])
def test_a_written_config_reads_back_as_the_same(name: str, tmp_path: Path) -> None:
    found = load_config(TrainConfig, CONFIGS / f"{name}.yaml", ["store=somewhere"])
    (tmp_path / "config.yaml").write_text(dump_yaml(to_plain(found)))
    assert load_config(TrainConfig, tmp_path / "config.yaml") == found


def test_a_config_without_a_store_says_so() -> None:
    with pytest.raises(ConfigError, match="store: missing"):
        load_config(TrainConfig, CONFIGS / "tiny.yaml")
