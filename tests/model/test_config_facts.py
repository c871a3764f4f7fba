from pathlib import Path

import pytest

from model.config_facts import config_facts, count_parameters
from model.network import NetworkConfig, build_network
from model.training.config import TrainConfig
from pipeline.clips import ClipConfig
from pipeline.errors import StoreError

SMALL = {
    "embed_dims": (8,) * 9, "depths": (2,) * 7 + (1, 1), "num_heads": (2,) * 9, "window": (2, 2, 2),
    "indep_reconsts": (8,), "mul_attn_ratio": 0.5, "deformable_groups": 2, "spike_channels": (4, 8, 8, 8),
}  # fmt: skip


def config(store: Path, **network: object) -> TrainConfig:
    clip = ClipConfig(num_frames=2, crop=16)
    return TrainConfig(store=store, batch_size=3, clip=clip, network=NetworkConfig(**SMALL | network))


def test_the_parts_add_up_to_the_network(tmp_path: Path) -> None:
    settings = config(tmp_path / "none")
    facts = config_facts(settings)
    parts = {part["name"]: part for part in facts["parts"]}
    stages = [f"stage{i}" for i in range(1, 8)]
    first = ["spynet", "conv_first", "spike_encoder", "stage1", "fusions"]
    assert list(parts) == [*first, *stages[1:], "stage8", "tail"]
    network = build_network(settings.network, 32)
    assert facts["parameters"] == count_parameters(network) == sum(p["parameters"] for p in parts.values())
    assert facts["flops"]["forward"] == sum(part["flops"] for part in parts.values())
    kept = sum(part["saved_bytes"] for part in parts.values()) + facts["between_bytes"]
    assert facts["saved_bytes"]["step"] == kept
    for name in (*stages, "stage8"):
        for key in ("parameters", "flops"):
            assert parts[name][key] == sum(piece[key] for piece in parts[name]["pieces"])
    names = ["reshape", "group 1", "group 2", "linears", "offset convs", "deformable conv", "pa_fuse"]
    assert [piece["name"] for piece in parts["stage4"]["pieces"]] == names
    assert parts["stage4"]["pieces"][5]["parameters"] == 8 * 8 * 9 + 8
    assert [piece["name"] for piece in parts["stage8"]["pieces"]] == ["entry", "group 1", "group 2"]


def test_a_store_that_is_not_there_has_32_bins_for_now(tmp_path: Path) -> None:
    facts = config_facts(config(tmp_path / "none", flow="none"))
    assert (facts["store"], facts["num_bins"], facts["scale"]) == (None, 32, 1)
    assert facts["clip"] == {"batch": 3, "frames": 2, "height": 16, "width": 16}
    assert config_facts(config(tmp_path / "none", flow="none", fusion="none"))["num_bins"] is None
    (tmp_path / "bad").mkdir()
    with pytest.raises(StoreError):
        config_facts(config(tmp_path / "bad"))


def test_recomputed_stages_cost_operations_and_save_memory(tmp_path: Path) -> None:
    settings = {"flow": "none", "fusion": "none"}
    free = config_facts(config(tmp_path / "none", **settings))
    assert free["checkpoint_stages"] == []
    assert free["flops"]["step_checkpointed"] == free["flops"]["step"]
    named = config_facts(config(tmp_path / "none", checkpoint_stages=(1, 8), **settings))
    assert (
        named["checkpoint_stages"] == [1, 8] and named["saved_bytes"]["step"] == free["saved_bytes"]["step"]
    )
    budget = named["saved_bytes"]["step_checkpointed"]
    assert budget < free["saved_bytes"]["step"]
    added = named["flops"]["step_checkpointed"] - named["flops"]["step"]
    chosen = config_facts(config(tmp_path / "none", memory_gb=budget / 1e9, **settings))
    assert chosen["saved_bytes"]["step_checkpointed"] <= budget
    assert 0 < chosen["flops"]["step_checkpointed"] - chosen["flops"]["step"] <= added
