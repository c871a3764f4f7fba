import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from model.losses import CombinedLoss, LossConfig
from model.network import NetworkConfig, build_network
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.parallel import Parallel
from model.training.diagnosis import MOST_LISTED, diagnose, find, is_finite, look, non_finite, require_finite
from model.training.learner import Learner
from model.training.optim import OptimConfig
from pipeline.clips import Sample
from pipeline.errors import TrainingError
from tests.model.training.test_learner import assert_equal, state_of

NAN, INF = math.nan, math.inf
MakeLearner = Callable[..., Learner]


@pytest.fixture
def make(tiny: Callable[..., NetworkConfig]) -> MakeLearner:
    def make(precision: str = "fp32", **changes: Any) -> Learner:
        torch.manual_seed(0)
        network = build_network(tiny(depths=(1,) * 9, drop_path_rate=0.3, **changes), 4)
        return Learner(
            network,
            CombinedLoss(LossConfig(perceptual_weight=0.0)),
            VoxelNormalizer(np.resize(np.linspace(-1, 3, 256, dtype=np.float32), NUM_COUNTS)),
            OptimConfig(lr=1e-3, warmup_steps=0, ema_decay=0.9),
            Parallel(device=torch.device("cpu"), precision=precision),
            steps=4,
            seed=0,
        )

    return make


def clips(count: int = 2) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 2, 3, 16, 16), (1, 2, 4, 8, 8), (1, 2, 3, 16, 16))
    return [
        Sample(*(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes))
        for _ in range(count)
    ]


def spoil_output(module: torch.nn.Module, value: float, batch: int = 0) -> None:
    calls = iter(range(1000))

    def hook(module: torch.nn.Module, given: Any, gave: torch.Tensor) -> torch.Tensor:
        bad = torch.zeros_like(gave)
        bad.view(-1)[:3] = value
        return gave + bad if next(calls) == batch else gave

    module.register_forward_hook(hook)


def test_a_step_that_is_finite_has_no_findings_and_nothing_changes(make: MakeLearner) -> None:
    learner, other = make(), make()
    for one in (learner, other):
        one.step(0, clips())
    before = state_of(learner)
    found = diagnose(learner, 1, clips())
    assert found.is_finite and found.lines() == ["done once more by this process alone, the step is finite"]
    assert_equal(state_of(learner), before)
    assert learner.step(1, clips()) == other.step(1, clips())
    assert_equal(state_of(learner), state_of(other))


def test_does_the_step_again_with_its_random_numbers(make: MakeLearner) -> None:
    learner = make()
    torch.rand(5)
    terms = learner.repeat(2, clips())
    assert sum(float(term.total) for term in terms) == make().step(2, clips()).loss


@pytest.mark.parametrize("stages", [(), (1, 2)])
def test_names_the_module_where_it_began_and_what_followed(
    make: MakeLearner, stages: tuple[int, ...]
) -> None:
    learner = make(checkpoint_stages=stages)
    spoil_output(learner.network.stage2.linear1, NAN)
    found = diagnose(learner, 0, clips(1))
    first, second = found.modules[:2]
    assert learner.network.config.checkpoint_stages == stages
    assert (first.name, first.nans, first.infs, first.arose_here) == ("stage2.linear1", 3, 0, True)
    assert first.low is not None and first.low < first.high
    assert second.arose_here is False and len(found.modules) == MOST_LISTED
    assert [finding.name for finding in found.loss] == ["0.total", "0.charbonnier"]
    assert not found.inputs and not found.weights and found.gradients
    assert found.lines()[:2] == ["first modules whose output is not finite:", f"  {first}"]
    assert "3 NaN of" in str(first) and str(first).endswith("its inputs are finite")


def test_names_the_module_whose_gradient_began_it(make: MakeLearner) -> None:
    learner = make()

    def hook(module: torch.nn.Module, given: Any, gave: torch.Tensor) -> None:
        gave.register_hook(lambda gradient: gradient * INF)

    learner.network.stage3.linear1.register_forward_hook(hook)
    found = diagnose(learner, 0, clips(1))
    assert not found.modules and not found.loss
    assert found.module_gradients[0].name != "conv_last" and found.gradients
    assert all(
        finding.name.split(".")[0] not in ("conv_last", "stage8") for finding in found.module_gradients
    )


def test_names_the_input_and_its_batch(make: MakeLearner) -> None:
    learner = make()
    spoil_output(learner.normalizer, NAN, batch=1)
    found = diagnose(learner, 0, clips())
    assert [(finding.name, finding.nans) for finding in found.inputs] == [("1.voxels", 3)]
    assert found.loss[0].name == "1.total"


def test_names_weights_moments_and_averages(make: MakeLearner) -> None:
    learner = make()
    learner.step(0, clips())
    parameter = learner.network.conv_last.bias
    with torch.no_grad():
        parameter[0] = INF
    learner.optimizer.state[parameter]["exp_avg"][1] = NAN
    names = {finding.name for finding in diagnose(learner, 1, clips()).weights}
    assert names == {"model.conv_last.bias", "optimizer.exp_avg.conv_last.bias"}


def test_is_plain_values_for_a_file(make: MakeLearner) -> None:
    learner = make("bf16")
    spoil_output(learner.network.conv_first, -INF)
    plain = json.loads(json.dumps(diagnose(learner, 3, clips()).to_json(), allow_nan=False))
    assert plain["step"] == 3 and plain["modules"][0]["name"] == "conv_first"
    assert plain["modules"][0]["infs"] == 3


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_finds_one_value_among_many(value: float, kind: torch.dtype) -> None:
    tensors = {name: torch.ones(3, 5, dtype=kind) for name in "abc"}
    tensors |= {"counts": torch.ones(3, dtype=torch.uint8), "empty": torch.ones(0)}
    assert non_finite(tensors) == [] and is_finite(tensors["b"])
    tensors["b"][1, 2] = value
    assert non_finite(tensors) == ["b"] and not is_finite(tensors["b"])
    (found,) = find(tensors)
    assert (found.elements, found.nans + found.infs, found.low, found.high) == (15, 1, 1.0, 1.0)
    assert non_finite({}) == []


def test_large_values_are_finite() -> None:
    largest = torch.finfo(torch.float32).max
    assert non_finite({"a": torch.full((1000,), largest), "b": torch.tensor([-largest])}) == []


def test_nothing_finite_at_all() -> None:
    found = look("x", torch.tensor([NAN, INF, -INF]))
    assert str(found) == "x: 1 NaN and 2 Inf of 3 values, nothing finite"


def test_refuses_a_state_that_is_not_finite_and_names_the_tensors() -> None:
    require_finite({"model.a": torch.ones(2)}, 7)
    with pytest.raises(TrainingError, match=r"after step 7, 1 tensors .*\n  model\.b: 1 NaN of 2") as caught:
        require_finite({"model.a": torch.ones(2), "model.b": torch.tensor([1.0, NAN])}, 7)
    assert "--resume" in caught.value.fix
    many = {str(i): torch.tensor(NAN) for i in range(50)}
    with pytest.raises(TrainingError, match="and 42 more") as caught:
        require_finite(many, 7)
    assert len(caught.value.problem.splitlines()) == MOST_LISTED + 2
