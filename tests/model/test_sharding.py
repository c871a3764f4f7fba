from pathlib import Path

import pytest
import torch
from torch import nn

from model.parallel import Parallel, ParallelConfig, parallel
from model.sharding import (
    load_whole,
    own_rows,
    rows_like,
    shard,
    skeleton,
    whole,
    whole_network,
    whole_on_main,
)
from tests.ranks import ranks


def take_apart_and_put_together() -> str:
    """Everything there and back, with parameters of more, as many and fewer rows than there are processes."""
    with parallel(ParallelConfig(device="cpu", strategy="fsdp")) as place:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
        before = {name: value.clone() for name, value in network.state_dict().items()}
        bones = skeleton(network)
        shard(network, place.device)
        rows = [len(own_rows(parameter)) for parameter in network.parameters()]
        state = network.state_dict()
        assert all(torch.equal(whole(state[name]), value) for name, value in before.items())
        assert all(
            torch.equal(own_rows(rows_like(value, state[name])), own_rows(state[name]))
            for name, value in before.items()
        )

        copied = whole_network(bones, network, place.device)
        gathered = whole_on_main(state, is_main=place.is_main)
        assert gathered.keys() == (before.keys() if place.is_main else set())
        if place.is_main:  # nobody else takes part
            assert all(torch.equal(gathered[name], value) for name, value in before.items())
            assert all(torch.equal(copied.state_dict()[name], value) for name, value in before.items())
            assert copied.eval()(torch.ones(2, 3)).shape == (2, 1)
            assert not any(parameter.requires_grad for parameter in copied.parameters())
        place.gather(None)

        load_whole(network, {name: value + 1 for name, value in before.items()})
        assert all(
            torch.equal(whole(value), before[name] + 1) for name, value in network.state_dict().items()
        )
        for wrong in ({"0.weight": torch.zeros(1)}, {**before, "more": torch.zeros(1)}):
            with pytest.raises(RuntimeError):
                load_whole(network, wrong)
    return f"{rows}"


def test_a_network_is_taken_apart_and_put_together_again(tmp_path: Path) -> None:
    with ranks(tmp_path, take_apart_and_put_together) as workers:
        assert workers.wait(60) == [0, 0], (workers.said(0), workers.said(1))
    assert workers.said(0) == "[3, 3, 3, 3, 1, 1]\n" and workers.said(1) == "[2, 2, 2, 2, 0, 0]\n"


def test_without_sharding_tensors_stay_as_they_are() -> None:
    tensor, network = torch.ones(3), nn.Linear(2, 2)
    assert whole(tensor) is tensor and rows_like(tensor, tensor) is tensor and own_rows(tensor) is tensor
    load_whole(network, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert network.weight.sum() == 4


@pytest.mark.parametrize(
    ("strategy", "world", "shards"), [("ddp", 2, False), ("fsdp", 1, False), ("fsdp", 2, True)]
)
def test_only_several_processes_share(strategy: str, world: int, shards: bool) -> None:
    assert Parallel(device=torch.device("cpu"), strategy=strategy, world=world).shards == shards
