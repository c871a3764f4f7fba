import pytest
import torch
from torch import nn

from model.training.optim import (
    OptimConfig,
    build_optimizer,
    flow_parameters,
    learning_rate,
    set_learning_rate,
)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Linear(1, 1)
        self.stage1 = nn.ModuleDict({"pa_deform": nn.Linear(1, 1), "linear": nn.Linear(1, 1)})


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1), (99, 0.1)],
)
def test_learning_rate_rises_and_falls_as_worked_out_by_hand(step: int, wanted: float) -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=4)
    assert learning_rate(step, config, steps=12) == pytest.approx(wanted)


def test_learning_rate_without_warm_up_starts_at_the_top() -> None:
    assert learning_rate(0, OptimConfig(lr=0.5, warmup_steps=0), steps=10) == 0.5


def test_flow_and_alignment_learn_more_slowly() -> None:
    network = Parts()
    optimizer = build_optimizer(network, OptimConfig(flow_lr_multiplier=0.125))
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(network.stage1["linear"].weight)] == 0.8
    assert rates[id(network.spynet.weight)] == pytest.approx(0.1)
    assert rates[id(network.stage1["pa_deform"].bias)] == pytest.approx(0.1)
    assert len(rates) == 6 and len(list(flow_parameters(network))) == 4


def test_what_does_not_learn_is_not_in_it() -> None:
    network = Parts()
    network.spynet.requires_grad_(False)
    network.stage1["linear"].bias.requires_grad_(False)
    groups = build_optimizer(network, OptimConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [1, 2]


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
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_refuses_settings_that_cannot_work(values: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        OptimConfig(**values)
