from dataclasses import replace
from pathlib import Path

import pytest

from model.lora import LoraConfig
from model.losses import LossConfig
from model.network import NetworkConfig, build_network
from model.train import train
from model.training.config import TrainConfig
from model.training.dry_run import plan_training
from model.training.optim import OptimConfig
from pipeline.clips import ClipConfig
from pipeline.errors import CheckpointError, ConfigError, StoreError, TrainingError, UsageError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.voxelize import voxelize

NETWORK = NetworkConfig(
    embed_dims=(16,) * 8,
    depths=(1,) * 8,
    num_heads=(1,) * 8,
    window=(2, 2, 2),
    indep_reconsts=(),
    mul_attn_ratio=1.0,
    deformable_groups=1,
    flow="none",
    spike_channels=(8, 8, 8, 8),
    spike_heads=1,
    fusion_heads=1,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("plan")
    rig = RigConfig(num_frames=3, exposure_frames=8, gap_frames=2)
    scenes = SceneConfig(height=32, width=32, train=2, val=0, test=0, objects=(1, 1), rig=rig)
    simulate_scenes(folder / "raw", scenes)
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=4, workers=1)
    return TrainConfig(
        store=folder / "store",
        steps=2,
        validate_every=0,
        sample_every=0,
        clip=ClipConfig(num_frames=2, crop=16),
        network=NETWORK,
        loss=LossConfig(perceptual_weight=0.0),
        optim=OptimConfig(warmup_steps=0, ema_decay=0.9),
    )


def test_foretells_what_training_does(config: TrainConfig, tmp_path: Path) -> None:
    plan = plan_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert (plan.run, plan.step, plan.steps, plan.clips) == (tmp_path / "run", 0, 2, 4)
    assert plan.parameters == sum(p.numel() for p in build_network(NETWORK, 4).parameters())
    written = train(config, tmp_path / "run").checkpoint.stat().st_size
    assert 0.7 * written < plan.checkpoint_bytes <= written  # the file also has a header and index tables
    later = replace(config, steps=9)
    tuned = replace(
        config, init=tmp_path / "run" / "checkpoints" / "last.safetensors", lora=LoraConfig(rank=2)
    )
    less = plan_training(tuned, tmp_path / "tuned")
    assert less.trainable < plan.trainable == plan.parameters < less.parameters
    assert less.checkpoint_bytes == 4 * (less.parameters + 3 * less.trainable)
    assert plan_training(later, tmp_path / "run", resume=True).step == 2


def test_finds_what_training_would_refuse(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    wrong = [
        (replace(config, store=tmp_path / "none"), "run", StoreError, "no store here"),
        (replace(config, voxels="k9"), "run", StoreError, "k9"),
        (replace(config, clip=ClipConfig(num_frames=4, crop=16)), "run", TrainingError, "4 consecutive"),
        (replace(config, loss=LossConfig()), "run", CheckpointError, "VGG16"),
        (replace(config, init=tmp_path / "none.pth"), "run", CheckpointError, r"none\.pth"),
        (config, "used", UsageError, "not empty"),
    ]
    for settings, folder, kind, text in wrong:
        with pytest.raises(kind, match=text):
            plan_training(settings, tmp_path / folder)
        with pytest.raises(kind, match=text):
            train(settings, tmp_path / folder)
    assert not (tmp_path / "run").exists()


def test_finds_that_a_run_cannot_be_resumed_with_other_settings(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "run")
    with pytest.raises(UsageError, match="seed: 0 in the run, 1 now"):
        plan_training(replace(config, seed=1), tmp_path / "run", resume=True)


def test_foretells_which_stages_are_recomputed(config: TrainConfig, tmp_path: Path) -> None:
    assert plan_training(config, tmp_path / "run").checkpoint_stages == ()
    named = replace(config, network=replace(NETWORK, checkpoint_stages=(2,)))
    assert plan_training(named, tmp_path / "run").checkpoint_stages == (2,)
    tight = replace(config, network=replace(NETWORK, memory_gb=1.0e-5))
    with pytest.raises(ConfigError, match="cannot be kept below"):
        plan_training(tight, tmp_path / "run")
