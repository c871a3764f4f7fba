import pytest
import torch
from torch import nn

from model.training.ema import WeightAverage


def test_follows_the_weights_by_the_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average.update(0)  # decay (1 + 0) / (10 + 0) = 0.1
    assert average.network.weight.item() == pytest.approx(0.9)
    with torch.no_grad():
        network.weight.fill_(2.0)
    average.update(100)  # decay min(0.5, 101 / 110)
    assert average.network.weight.item() == pytest.approx(0.5 * 0.9 + 0.5 * 2.0)


def test_leaves_the_network_alone_and_does_not_learn() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = WeightAverage(network, 0.9)
    average.update(5)
    assert network.training and network[0].weight.requires_grad
    assert not average.network.training and not average.network[0].weight.requires_grad


def test_shares_the_parameters_that_do_not_learn() -> None:
    network = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    average = WeightAverage(network, 0.9)
    assert average.network[0].weight is network[0].weight
    assert average.network[1].weight is not network[1].weight
    with torch.no_grad():
        network[1].weight.fill_(1.0)
    average.update(10**6)
    assert not torch.equal(average.network[1].weight, network[1].weight)
    assert network[1].weight.requires_grad and not network[0].weight.requires_grad
