from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.losses import CombinedLoss, LossConfig
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.parallel import Parallel
from model.training.learner import Learner
from model.training.optim import OptimConfig
from pipeline.clips import Sample
from pipeline.errors import CheckpointError

CPU = Parallel(device=torch.device("cpu"))
STEPS = 8


class Net(nn.Module):
    """Both inputs, a flow part and randomness, in a few parameters."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.rgb = nn.Conv2d(3, 3, 3, padding=1)
        self.spikes = nn.Conv2d(4, 3, 3, padding=1)
        self.spynet = nn.Conv2d(3, 3, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, blurry: Tensor, voxels: Tensor | None = None) -> Tensor:
        batch, frames = blurry.shape[:2]
        x = self.rgb(blurry.flatten(0, 1)) + self.spynet(blurry.flatten(0, 1))
        if voxels is not None:
            x = x + nn.functional.interpolate(self.spikes(voxels.flatten(0, 1)), scale_factor=2)
        return blurry + self.drop(x).unflatten(0, (batch, frames))


def make(
    config: OptimConfig | None = None,
    drop: float = 0.0,
    place: Parallel = CPU,
    network: nn.Module | None = None,
) -> Learner:
    torch.manual_seed(3)
    return Learner(
        network or Net(drop),
        CombinedLoss(LossConfig(perceptual_weight=0.0)),
        VoxelNormalizer(np.resize(np.linspace(-1, 3, 256, dtype=np.float32), NUM_COUNTS)),
        config or OptimConfig(lr=1e-2, warmup_steps=2),
        place,
        steps=STEPS,
        seed=7,
    )


def clip(step: int, batch: int = 1) -> Sample:
    generator = torch.Generator().manual_seed(step)

    def draw(*shape: int) -> Tensor:
        return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=generator)

    return Sample(draw(2, 3, 8, 8), draw(2, 4, 4, 4), draw(2, 3, 8, 8))


def state_of(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.tensors().items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def run(learner: Learner, steps: range) -> list[float]:
    return [learner.step(step, [clip(step)]).loss for step in steps]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_going_on_from_a_saved_state_repeats_the_uninterrupted_run_bit_for_bit(
    precision: str, stop: int
) -> None:
    place = Parallel(device=torch.device("cpu"), precision=precision)
    config = OptimConfig(lr=1e-2, warmup_steps=2, ema_decay=0.9, flow_freeze_steps=2)
    whole = make(config, drop=0.3, place=place)
    losses = run(whole, range(STEPS))

    first = make(config, drop=0.3, place=place)
    run(first, range(stop))
    saved, plain = state_of(first), first.plain()
    torch.manual_seed(99)  # whatever happened in between
    second = make(config, drop=0.3, place=place)
    second.load(saved, plain)

    assert run(second, range(stop, STEPS)) == losses[stop:]
    assert_equal(state_of(second), state_of(whole))
    assert second.plain() == whole.plain()


def test_a_run_goes_on_in_half_precision_with_a_scaler_that_begins_anew() -> None:
    half = Parallel(device=torch.device("cpu"), precision="fp16")
    first, second = make(), make(place=half)
    run(first, range(2))
    second.load(state_of(first), first.plain())
    assert second.plain() == make(place=half).plain() != first.plain()


def test_the_loss_falls() -> None:
    learner = make(OptimConfig(lr=3e-2, warmup_steps=0))
    losses = [learner.step(0, [clip(0)]).loss for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_accumulated_batches_step_like_one_of_all_their_clips() -> None:
    whole, pieces = make(), make()
    for step in range(4):
        batch = clip(step, batch=4)
        parts = [Sample(*(part[i : i + 2] for part in batch)) for i in (0, 2)]
        one, two = whole.step(step, [batch]), pieces.step(step, parts)
        assert two.loss == pytest.approx(one.loss, rel=1e-5)
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for name, tensor in pieces.network.state_dict().items():
        torch.testing.assert_close(tensor, whole.network.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_randomness_belongs_to_the_step_and_not_to_what_ran_before() -> None:
    first, second = make(drop=0.5), make(drop=0.5)
    torch.rand(1000)
    assert first.step(3, [clip(0)]).loss == second.step(3, [clip(0)]).loss
    third = make(drop=0.5)
    assert third.step(4, [clip(0)]).loss != make(drop=0.5).step(3, [clip(0)]).loss


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported() -> None:
    learner = make(OptimConfig(clip_norm=1e-3))
    clipped: list[float] = []
    learner.optimizer.register_step_pre_hook(lambda *_: clipped.append(norm_of(learner.network)))
    result = learner.step(0, [clip(0)])
    assert result.grad_norm > 1e-2
    assert clipped[0] == pytest.approx(1e-3, rel=1e-2)


def norm_of(network: nn.Module) -> float:
    return sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None) ** 0.5


def poison(part: str) -> Callable[[Learner], None]:
    def apply(learner: Learner) -> None:
        if part == "loss":
            learner.network.register_forward_hook(lambda module, inputs, output: output * float("nan"))
        else:
            learner.network.rgb.weight.register_hook(lambda gradient: gradient * float("inf"))

    return apply


@pytest.mark.parametrize("part", ["loss", "gradient"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_is_not_finite_changes_nothing(part: str, precision: str) -> None:
    learner = make(place=Parallel(device=torch.device("cpu"), precision=precision))
    learner.step(0, [clip(0)])
    before = state_of(learner)
    poison(part)(learner)
    result = learner.step(1, [clip(1)])
    assert not result.applied
    assert_equal(state_of(learner), before)
    assert result.overflow == (precision == "fp16" and part == "gradient")


def test_a_scale_that_is_stuck_at_its_minimum_is_a_fault_and_no_overflow() -> None:
    learner = make(place=Parallel(device=torch.device("cpu"), precision="fp16"))
    poison("gradient")(learner)
    results = [learner.step(step, [clip(step)]) for step in range(18)]
    assert not any(result.applied for result in results)
    halvings = 16  # from 2**16 to 1
    assert [result.overflow for result in results] == [True] * (halvings - 1) + [False] * (19 - halvings)


def test_a_step_that_fails_before_the_update_leaves_the_state_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, other = make(), make()
    backward = learner._backward

    def fail(*about: object) -> None:
        backward(*about)
        raise MemoryError

    monkeypatch.setattr(learner, "_backward", fail)
    with pytest.raises(MemoryError):
        learner.step(0, [clip(0)])
    assert learner.is_whole
    assert_equal(state_of(learner), state_of(other))
    monkeypatch.undo()
    monkeypatch.setattr(learner.average, "update", fail)
    with pytest.raises(TypeError):
        learner.step(0, [clip(0)])
    assert not learner.is_whole


def test_flow_is_frozen_for_the_first_steps_and_then_learns() -> None:
    learner = make(OptimConfig(flow_freeze_steps=2, weight_decay=0.1, warmup_steps=0))
    fresh = state_of(learner)
    for step in range(2):
        learner.step(step, [clip(step)])
    frozen = state_of(learner)
    assert torch.equal(frozen["model.spynet.weight"], fresh["model.spynet.weight"])
    assert not torch.equal(frozen["model.rgb.weight"], fresh["model.rgb.weight"])
    learner.step(2, [clip(2)])
    assert not torch.equal(state_of(learner)["model.spynet.weight"], fresh["model.spynet.weight"])


def test_what_does_not_learn_stays_frozen_and_costs_no_state() -> None:
    config = OptimConfig(lr=1e-2, weight_decay=0.1, warmup_steps=0, flow_freeze_steps=1, ema_decay=0.9)

    def fresh() -> Learner:
        network = Net()
        network.spynet.requires_grad_(False)
        network.rgb.bias.requires_grad_(False)
        return make(config, network=network)

    learner = fresh()
    before = state_of(learner)
    run(learner, range(3))
    after = state_of(learner)
    frozen = {"rgb.bias", "spynet.weight", "spynet.bias"}
    learned = {"rgb.weight", "spikes.weight", "spikes.bias"}
    assert all(torch.equal(after[f"model.{name}"], before[f"model.{name}"]) for name in frozen)
    assert all(not torch.equal(after[f"model.{name}"], before[f"model.{name}"]) for name in learned)
    for name, parameter in learner.network.named_parameters():
        assert (parameter in learner.optimizer.state) == (name in learned)
    assert {name.removeprefix("ema.") for name in after if name.startswith("ema.")} == learned
    assert len(after["optimizer.steps"]) == len(learned)
    again = fresh()
    again.load(after, learner.plain())
    assert run(again, range(3, 6)) == run(learner, range(3, 6))
    assert_equal(state_of(again), state_of(learner))


def test_restores_with_any_network_in_evaluation_mode_and_leaves_its_mode_alone() -> None:
    learner = make(drop=0.9)
    learner.network.train()
    first, second = (learner.restore(learner.network, clip(0)) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.float32 and not first.requires_grad
    assert learner.network.training


def test_without_a_normalizer_the_network_gets_no_voxels() -> None:
    learner = make()
    learner.normalizer = None
    before = learner.network.spikes.weight.clone()
    learner.step(0, [clip(0)])
    assert torch.equal(learner.network.spikes.weight, before)


def test_keeps_the_averaged_network_apart_from_the_last() -> None:
    averaged, plain = make(OptimConfig(ema_decay=0.9)), make(OptimConfig(ema_decay=0.0))
    assert averaged.best_network is not averaged.network
    assert plain.best_network is plain.network
    assert not any(name.startswith("ema.") for name in plain.tensors())


def test_hears_a_request_to_stop() -> None:
    learner = make()
    assert not learner.step(0, [clip(0)]).stop
    assert learner.step(1, [clip(1)], lambda: True).stop


def test_refuses_the_state_of_another_network() -> None:
    learner = make()
    learner.step(0, [clip(0)])
    saved = state_of(learner)
    del saved["model.rgb.weight"]
    with pytest.raises(CheckpointError, match="does not fit"):
        make().load(saved, learner.plain())
