from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.losses import LossConfig
from model.network import NetworkConfig
from model.training.config import TrainConfig
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig
from pipeline.config import load_config, to_plain
from pipeline.errors import ConfigError
from pipeline.yaml_files import dump_yaml

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["tiny", "base", "rgb_only", "vrt_gopro", "vrt_gopro_spikes"])
def test_the_presets_are_valid(name: str) -> None:
    found = load_config(TrainConfig, CONFIGS / f"{name}.yaml", ["store=somewhere", "init=weights.pth"])
    assert (found.network.fusion == "none") == (name in ("rgb_only", "vrt_gopro"))
    if name == "base":
        assert found.network == NetworkConfig() and found.loss == LossConfig() and found.clip == ClipConfig()
    if name.startswith("vrt_gopro"):
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


def test_the_official_preset_is_the_published_recipe() -> None:
    """The numbers of KAIR's `006_train_vrt_videodeblurring_gopro.json`, under our names."""
    found = load_config(TrainConfig, CONFIGS / "vrt_gopro.yaml", ["store=somewhere"])
    assert found.clip == ClipConfig(num_frames=6, crop=192, flips=True, rotations=True, time_reversal=False)
    assert found.optim == OptimConfig(
        lr=4e-4,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        warmup_steps=0,
        schedule="cosine",
        min_lr=1e-7,
        clip_norm=None,
        ema_decay=0.0,
        accumulate=1,
        flow_lr_multiplier=0.125,
        flow_freeze_steps=20_000 - 1,
    )
    assert (found.steps, found.batch_size, found.parallel.precision) == (300_000, 1, "fp32")
    assert found.loss.perceptual_weight == 0 and found.loss.charbonnier_weight == 1
    without_memory = replace(found.network, memory_gb=None)
    assert without_memory == NetworkConfig(fusion="none")


@pytest.mark.parametrize("changes", [{"init": None}, {"network": NetworkConfig(fusion="none")}])
def test_freezing_the_rgb_network_needs_trained_weights_and_a_branch_to_learn(
    changes: dict[str, Any],
) -> None:
    settings = {"store": Path("store"), "init": Path("w.pth"), "optim": OptimConfig(rgb_freeze_steps=5)}
    TrainConfig(**settings)
    with pytest.raises(ValueError, match=r"optim\.rgb_freeze_steps 5 .* needs init and network\.fusion"):
        TrainConfig(**settings | changes)


@pytest.mark.parametrize("name", ["tiny", "base", "vrt_gopro"])
def test_a_written_config_reads_back_as_the_same(name: str, tmp_path: Path) -> None:
    found = load_config(TrainConfig, CONFIGS / f"{name}.yaml", ["store=somewhere"])
    (tmp_path / "config.yaml").write_text(dump_yaml(to_plain(found)))
    assert load_config(TrainConfig, tmp_path / "config.yaml") == found


def test_a_config_without_a_store_says_so() -> None:
    with pytest.raises(ConfigError, match="store: missing"):
        load_config(TrainConfig, CONFIGS / "tiny.yaml")


def test_low_rank_updates_need_weights_to_start_from() -> None:
    with pytest.raises(ConfigError, match=r"lora\.rank 4 .* init"):
        load_config(TrainConfig, CONFIGS / "tiny.yaml", ["store=s", "lora.rank=4"])
    found = load_config(
        TrainConfig, CONFIGS / "tiny.yaml", ["store=s", "lora.rank=4", "init=x", "lora.layers=[mlp]"]
    )
    assert found.lora.layers == ("mlp",) and found.lora.scale == 4.0
    with pytest.raises(ConfigError, match=r"lora\.ranks: unknown key .*'rank'"):
        load_config(TrainConfig, CONFIGS / "tiny.yaml", ["store=s", "lora.ranks=4"])
