from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.lora import LAYERS, LoraConfig, adapt, merge, trainable
from model.losses import CombinedLoss, LossConfig
from model.network import NetworkConfig, SpikeVRT, build_network
from model.parallel import Parallel
from model.pretrained import check_import
from model.training.learner import Learner
from model.training.optim import OptimConfig
from pipeline.clips import Sample
from pipeline.errors import CheckpointError, ConfigError

SMALL = {
    "embed_dims": (8,) * 8, "depths": (1,) * 8, "num_heads": (2,) * 8, "window": (2, 2, 2), "indep_reconsts": (),
    "deformable_groups": 2, "flow": "none", "spike_channels": (8,) * 4, "spike_heads": 2, "fusion_heads": 2,
}  # fmt: skip


def network(**changes: Any) -> SpikeVRT:
    torch.manual_seed(0)
    return build_network(NetworkConfig(**SMALL | changes), 4).eval()


def learning(net: SpikeVRT) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


def make_noise(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_rank_0_leaves_the_network_as_it_is() -> None:
    net = network()
    before = set(net.state_dict())
    adapt(net, LoraConfig())
    assert set(net.state_dict()) == before and learning(net) == {name for name, _ in net.named_parameters()}


def test_learns_the_updates_and_the_spike_branch_and_nothing_else() -> None:
    net = network()
    before = set(net.state_dict())
    adapt(net, LoraConfig(rank=2))
    updates = set(net.state_dict()) - before
    assert all(".lora." in name for name in updates) and before < set(net.state_dict())
    assert "stage1.residual_group2.blocks.0.attn.qkv_self.lora.up" in updates
    assert not any(".mlp." in name or ".linear" in name for name in updates)
    spikes = {name for name in before if name.startswith(("spike_encoder.", "fusions."))}
    assert spikes and learning(net) == updates | spikes


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_is_in_the_network(kind: str) -> None:
    net = network(fusion="none")
    adapt(net, LoraConfig(rank=1, layers=(kind,)))
    assert trainable(net).layers >= 7 and all(".lora." in name for name in learning(net))


def test_layers_and_parts_can_be_chosen_by_patterns() -> None:
    net = network()
    adapt(net, LoraConfig(rank=1, layers=("stage[12].*.qkv_self", "stage7"), train=("conv_last", "*.norm1")))
    adapted = {name.split(".lora.")[0] for name in learning(net) if ".lora." in name}
    assert {name.split(".")[0] for name in adapted} == {"stage1", "stage2", "stage7"}
    assert "stage7.pa_fuse.fc2" in adapted and "stage1.residual_group2.blocks.0.attn.proj" not in adapted
    whole = {name for name in learning(net) if ".lora." not in name}
    assert {"conv_last.weight", "stage8.1.residual_group.blocks.0.norm1.bias"} < whole
    assert all(name.startswith("conv_last") or ".norm1." in name for name in whole)


def test_a_layer_that_learns_in_full_needs_no_update() -> None:
    net = network()
    adapt(net, LoraConfig(rank=1, layers=("qkv",), train=("stage1",)))
    assert not any(name.startswith("stage1.") and ".lora." in name for name in learning(net))
    assert any(name.startswith("stage2.") and ".lora." in name for name in learning(net))


@pytest.mark.parametrize("fusion", ["cross_attention", "none"])
def test_an_adapted_network_starts_as_the_one_it_was_made_of(fusion: str) -> None:
    net = network(fusion=fusion)
    make_noise(net.stage7)  # as if it had been trained: conv_last is 0 at first
    nn.init.normal_(net.conv_last.weight)
    blurry, voxels = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 4, 16, 16)
    with torch.no_grad():
        before = net(blurry, voxels)
        adapt(net, LoraConfig(rank=2, layers=tuple(LAYERS)))
        assert torch.equal(net(blurry, voxels), before) and not torch.equal(before, blurry)
    if fusion == "cross_attention":
        assert check_import(net, Path("here")) == 0


def test_the_import_check_sees_an_update_that_is_not_zero() -> None:
    net = network()
    nn.init.normal_(net.conv_last.weight)
    adapt(net, LoraConfig(rank=2))
    nn.init.normal_(net.stage1.residual_group2.blocks[0].attn.proj.lora.up)
    with pytest.raises(CheckpointError, match="import check"):
        check_import(net, Path("here"))


def test_a_merged_network_restores_what_the_adapted_one_restores() -> None:
    net, plain = network(), network()
    nn.init.normal_(net.conv_last.weight)
    config = LoraConfig(rank=2, alpha=8.0, layers=tuple(LAYERS))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adapt(net, config)
    make_noise(net)
    weights = merge(net.state_dict(), config)
    plain.load_state_dict(weights)  # strictly
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert "stage1.linear1.weight" in changed and "norm.weight" not in changed
    blurry, voxels = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 4, 16, 16)
    with torch.no_grad():
        adapted, merged = net(blurry, voxels), plain(blurry, voxels)
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-5)


def test_updates_alone_lower_the_loss() -> None:
    net = network(fusion="none")
    nn.init.normal_(net.conv_last.weight, std=0.05)
    adapt(net, LoraConfig(rank=2, layers=tuple(LAYERS)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    blurry, sharp = (
        torch.randint(0, 256, (1, 2, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in "bs"
    )
    clip = Sample(blurry, torch.zeros(1, 2, 4, 16, 16, dtype=torch.uint8), sharp)
    learner = Learner(
        net,
        CombinedLoss(LossConfig(perceptual_weight=0.0)),
        None,
        OptimConfig(lr=1e-2, warmup_steps=0, weight_decay=0.1, flow_freeze_steps=5),
        Parallel(device=torch.device("cpu")),
        steps=12,
        seed=0,
    )
    losses = [learner.step(step, [clip]).loss for step in range(12)]
    assert losses[-1] < losses[0] - 0.002
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= learning(net) and {name.split(".")[0] for name in changed} >= {
        "stage1",
        "stage7",
        "stage8",
    }


def test_says_how_much_learns() -> None:
    net = network()
    total = sum(parameter.numel() for parameter in net.parameters())
    assert trainable(net)[:2] == (total, total)
    adapt(net, LoraConfig(rank=2, layers=("stage7.linear1",), train=()))
    assert trainable(net) == (2 * (8 + 8), total + 2 * (8 + 8), 1)
    assert str(trainable(net)).startswith("0.00 M of 0.11 M parameters learn")


@pytest.mark.parametrize(
    ("values", "named"),
    [({"layers": ("qvk",)}, "lora.layers: 'qvk'"), ({"train": ("spike_encoder", "stage9")}, "lora.train: 'stage9'")],
)  # fmt: skip
def test_refuses_a_name_that_chooses_nothing(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        adapt(network(), LoraConfig(rank=1, **values))


def test_an_rgb_network_has_no_spike_branch_to_train() -> None:
    net = network(fusion="none")
    adapt(net, LoraConfig(rank=1))
    assert learning(net) and all(".lora." in name for name in learning(net))


@pytest.mark.parametrize("values", [{"rank": -1}, {"alpha": 0.0}, {"layers": ()}])
def test_refuses_settings_that_cannot_work(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        LoraConfig(**values)
