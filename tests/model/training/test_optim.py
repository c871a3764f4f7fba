from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from model.network import NetworkConfig, build_network
from model.training.optim import (
    OptimConfig,
    Pace,
    build_optimizer,
    freeze,
    frozen_groups,
    learning_rates,
    paces_of,
    parameter_groups,
)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Linear(1, 1)
        self.spike_encoder = nn.Linear(1, 1)
        self.fusions = nn.ModuleList([nn.Linear(1, 1)])
        self.stage1 = nn.ModuleDict({"pa_deform": nn.Linear(1, 1), "linear": nn.Linear(1, 1)})


def groups_of(config: OptimConfig, network: nn.Module | None = None) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in parameter_groups(network or Parts(), config)}


def test_the_parts_of_the_network_have_their_own_pace() -> None:
    network = Parts()
    config = OptimConfig(
        flow_lr_multiplier=0.125, flow_freeze_steps=3, rgb_lr_multiplier=0.5, rgb_freeze_steps=2
    )
    groups = groups_of(config, network)
    assert {name: (group["multiplier"], group["freeze_steps"]) for name, group in groups.items()} == {
        "rgb": (0.5, 2),
        "spikes": (1.0, 0),
        "flow": (0.125, 3),
    }
    linear, deform = network.stage1["linear"], network.stage1["pa_deform"]
    for name, wanted in (
        ("rgb", linear.parameters()),
        ("spikes", [*network.spike_encoder.parameters(), *network.fusions.parameters()]),
        ("flow", [*network.spynet.parameters(), *deform.parameters()]),
    ):
        assert set(map(id, groups[name]["params"])) == set(map(id, wanted))


def test_every_parameter_of_the_real_network_is_in_one_group(tiny: Callable[..., NetworkConfig]) -> None:
    network = build_network(tiny(flow="spynet"), num_bins=4)
    groups = groups_of(OptimConfig(), network)
    assert list(groups) == ["rgb", "spikes", "flow"]
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, network.parameters()))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in groups["spikes"]["params"]} == {"spike_encoder", "fusions"}
    assert len(groups["flow"]["params"]) == sum("spynet" in n or "deform" in n for n in names.values())


def test_what_does_not_learn_is_in_no_group() -> None:
    network = Parts()
    network.spynet.requires_grad_(False)
    network.stage1["pa_deform"].requires_grad_(False)
    assert list(groups_of(OptimConfig(), network)) == ["rgb", "spikes"]


def test_tells_the_pace_of_each_part() -> None:
    groups = parameter_groups(Parts(), OptimConfig(flow_lr_multiplier=0.125, flow_freeze_steps=7))
    rgb, spikes, flow = paces_of(groups)
    assert (rgb.part, spikes.parameters, flow) == ("rgb", 4, Pace("flow", 4, 0.125, 7))
    assert str(flow) == "flow: 0.00 M parameters, learning rate x 0.125, frozen for 7 steps"
    assert str(Pace("rgb", 2_340_000, 1.0, 0)) == "rgb: 2.34 M parameters, learning rate x 1"


def test_groups_are_frozen_and_released_by_the_step() -> None:
    network = Parts()
    optimizer = build_optimizer(network, OptimConfig(rgb_freeze_steps=2, flow_freeze_steps=3))
    assert [frozen_groups(optimizer, step) for step in (1, 2, 3)] == [
        (True, False, True),
        (False, False, True),
        (False, False, False),
    ]
    freeze(optimizer, (True, False, True))
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"spike_encoder", "fusions"}
    freeze(optimizer, (False, False, False))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_rates_of_now_go_by_the_names_of_the_groups() -> None:
    optimizer = build_optimizer(Parts(), OptimConfig(lr=1e-3))
    optimizer.param_groups[2]["lr"] = 5e-4
    assert learning_rates(optimizer) == {"rgb": 1e-3, "spikes": 1e-3, "flow": 5e-4}


def test_a_network_without_flow_has_one_group() -> None:
    assert len(build_optimizer(nn.Linear(2, 2), OptimConfig()).param_groups) == 1


def test_is_adamw_with_the_settings_given() -> None:
    group = build_optimizer(nn.Linear(2, 2), OptimConfig(betas=(0.8, 0.9), weight_decay=0.3)).param_groups[0]
    assert isinstance(build_optimizer(nn.Linear(2, 2), OptimConfig()), torch.optim.AdamW)
    assert group["betas"] == (0.8, 0.9) and group["weight_decay"] == 0.3


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": 1e-4, "min_lr": 1e-3}, "min_lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"flow_lr_multiplier": -0.1}, "flow_lr_multiplier"),
        ({"rgb_freeze_steps": -1}, "rgb_freeze_steps"),
        ({"schedule": "step"}, "schedule"),
        ({"periods": (10, 0)}, "periods"),
        ({"periods": (10,), "restart_weights": (1.0, 0.5)}, "restart_weights"),
        ({"periods": (10,), "restart_weights": (0.0,)}, "restart_weights"),
        ({"restart_weights": (1.0,)}, "restart_weights"),
        ({"schedule": "constant", "periods": (10,)}, "periods .* constant has none"),
        ({"milestones": (2000,)}, "milestones .* cosine has none"),
        ({"schedule": "multistep"}, "milestones"),
        ({"schedule": "multistep", "milestones": (2000, 2000)}, "milestones .* increase"),
        ({"schedule": "multistep", "milestones": (999,)}, "milestones .* warmup_steps 1000"),
        ({"schedule": "multistep", "milestones": (2000,), "gamma": 1.5}, "gamma"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_refuses_settings_that_cannot_work(values: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        OptimConfig(**values)
