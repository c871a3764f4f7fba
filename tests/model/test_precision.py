"""What runs in half precision in a training step, and what must not: seen by the operators that are called."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.losses import CombinedLoss, LossConfig
from model.network import NetworkConfig, build_network
from model.normalize import NUM_COUNTS, VoxelNormalizer
from model.parallel import Parallel
from model.training.learner import Learner
from model.training.optim import OptimConfig
from model.vgg import VggFeatures
from model.window_attention import window_attention
from pipeline.clips import Sample

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
F32 = torch.float32


class Call(NamedTuple):
    """An operator, the types of its floating-point arguments and results, and the shape of the second argument."""

    name: str
    given: tuple[torch.dtype, ...]
    made: tuple[torch.dtype, ...]
    weight: tuple[int, ...]


class Calls(TorchDispatchMode):
    """Keeps all operators that are called, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        second = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else torch.empty(0)
        name = func.overloadpacket.__name__
        self.calls.append(Call(name, _types((args, kwargs)), _types(out), tuple(second.shape)))
        return out

    def of(self, *names: str) -> list[Call]:
        """The calls of some operators, of which there are some."""
        found = [call for call in self.calls if call.name in names and call.given]
        assert found, names
        return found


def _types(values: Any) -> tuple[torch.dtype, ...]:
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return tuple(tensor.dtype for tensor in tensors)


def make(network: NetworkConfig, precision: str, **optim: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(
        build_network(network, num_bins=4),
        CombinedLoss(LossConfig(perceptual_weight=0.0)),
        VoxelNormalizer(torch.linspace(-1, 3, NUM_COUNTS).numpy()),
        OptimConfig(**({"lr": 1e-3, "warmup_steps": 0, "ema_decay": 0.9} | optim)),
        Parallel(device=torch.device("cpu"), precision=precision),
        steps=4,
        seed=0,
    )


def clip(step: int) -> Sample:
    generator = torch.Generator().manual_seed(step)

    def draw(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    return Sample(draw(1, 2, 3, 16, 16), draw(1, 2, 4, 8, 8), draw(1, 2, 3, 16, 16))


@pytest.fixture(scope="module", params=list(HALVES))
def step(request: pytest.FixtureRequest) -> Iterator[tuple[torch.dtype, Calls, Learner]]:
    """One step of a network with all of its parts: the half precision, what was called, and the learner after it."""
    network = NetworkConfig(
        embed_dims=(8,) * 8,
        depths=(2,) * 7 + (1,),
        num_heads=(2,) * 8,
        window=(2, 2, 2),
        indep_reconsts=(),
        mul_attn_ratio=0.5,
        deformable_groups=2,
        spike_channels=(4, 4, 4, 4),
        spike_heads=1,
        fusion_heads=1,
    )
    learner = make(network, request.param)
    for parameter in learner.network.conv_last.parameters():  # zero at first: no gradient would come through
        torch.nn.init.normal_(parameter, std=0.01)
    with Calls() as calls:
        learner.step(0, [clip(0)])
    yield HALVES[request.param], calls, learner


def test_matrix_products_run_in_half_precision(step: tuple[torch.dtype, Calls, Learner]) -> None:
    half, calls, _ = step
    assert {kind for call in calls.of("mm", "addmm") for kind in call.given} == {half}
    assert all(call.given[0] == half for call in calls.of("window_attention", "window_attention_backward"))
    offsets = [call for call in calls.of("convolution") if len(call.weight) == 4 and call.weight[-1] == 3]
    assert len(offsets) == 7 * 4 and all(set(call.given) == {half} for call in offsets)


def test_flow_and_warping_run_in_float32(step: tuple[torch.dtype, Calls, Learner]) -> None:
    _, calls, _ = step
    flow = [call for call in calls.of("convolution", "convolution_backward") if call.weight[-1:] == (7,)]
    assert len(flow) >= 6 * 5 and all({*call.given, *call.made} == {F32} for call in flow)
    for name in ("grid_sampler_2d", "grid_sampler_2d_backward", "tanh", "sigmoid"):
        assert all({*call.given, *call.made} == {F32} for call in calls.of(name)), name


def test_statistics_of_norms_and_softmax_are_float32(step: tuple[torch.dtype, Calls, Learner]) -> None:
    _, calls, _ = step
    for call in calls.of("native_layer_norm"):
        assert call.made[1:] == (F32, F32) and call.given[1:] == (
            F32,
            F32,
        )  # mean and deviation, gain and bias
    softmax = [call for call in calls.calls if "softmax" in call.name]
    assert softmax and all({*call.given, *call.made} == {F32} for call in softmax)
    assert all(
        call.given[1] == F32 for call in calls.of("window_attention") if len(call.given) > 1
    )  # the bias


def test_loss_residual_and_all_that_changes_weights_are_float32(
    step: tuple[torch.dtype, Calls, Learner],
) -> None:
    _, calls, learner = step
    for names in (
        ("sqrt",),
        ("mean",),
        ("_foreach_norm", "linalg_vector_norm"),
        ("_fused_adamw_",),
        ("_foreach_lerp_",),
    ):
        assert all({*call.given, *call.made} == {F32} for call in calls.of(*names)), names
    moments = [value for state in learner.optimizer.state.values() for value in state.values()]
    assert {
        value.dtype for value in [*learner.tensors().values(), *moments] if value.is_floating_point()
    } == {F32}
    with learner.place.autocast():
        assert learner.network(torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 4, 8, 8)).dtype == F32


@pytest.mark.parametrize("precision", list(HALVES))
def test_the_perceptual_loss_runs_in_float32(
    precision: str, tiny: Callable[..., NetworkConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.vgg.load_vgg", lambda network, weights: None)
    learner = make(tiny(fusion="none"), precision)
    learner.loss = CombinedLoss(LossConfig(perceptual_layers=("relu1_2",)))
    seen: list[torch.dtype] = []
    vgg = learner.loss.perceptual.vgg
    assert isinstance(vgg, VggFeatures)
    for layer in vgg.features:
        layer.register_forward_hook(
            lambda module, inputs, output: seen.extend([inputs[0].dtype, output.dtype])
        )
    assert learner.step(0, [clip(0)]).perceptual > 0
    assert set(seen) == {F32} and len(seen) == 2 * 2 * len(vgg.features)


@pytest.mark.parametrize("half", HALVES.values())
@pytest.mark.parametrize("mutual", [False, True])
def test_window_attention_loses_no_more_than_the_rounding_of_its_result(
    half: torch.dtype, mutual: bool
) -> None:
    """Scores of several hundred, of which half precision would keep the whole numbers only."""
    torch.manual_seed(0)
    qkv = (12 * torch.randn(1, 1, 2, 2, 16, 3 * 16)).to(half)
    exact = window_attention(qkv.double(), None, None, 2, mutual=mutual)
    found = window_attention(qkv, None, None, 2, mutual=mutual)
    assert found.dtype == half
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(half).eps, atol=1e-3)


def test_unscaled_gradients_are_what_fp16_clips_whatever_the_batches(
    tiny: Callable[..., NetworkConfig],
) -> None:
    parts = [clip(0), clip(1)]
    whole = Sample(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
    settings = {"clip_norm": 1e-3, "accumulate": 2}
    norms, clipped = [], []
    for precision, batches in (("fp32", [whole]), ("fp16", [whole]), ("fp16", parts)):
        learner = make(tiny(drop_path_rate=0.0), precision, **settings)
        parameters = list(learner.network.parameters())
        learner.optimizer.register_step_pre_hook(
            lambda *_, of=parameters: clipped.append(
                torch.nn.utils.get_total_norm([p.grad for p in of if p.grad is not None]).item()
            )
        )
        result = learner.step(0, batches)
        assert result.applied and learner.scaler.get_scale() == (65536 if precision == "fp16" else 1)
        norms.append(result.grad_norm)
    assert min(norms) > 1e-2 and norms == pytest.approx([norms[0]] * 3, rel=0.02)
    assert clipped == pytest.approx([1e-3] * 3, rel=1e-2)


def test_an_overflow_in_one_of_the_batches_leaves_the_whole_step_out_and_halves_the_scale(
    tiny: Callable[..., NetworkConfig],
) -> None:
    learner = make(tiny(), "fp16", clip_norm=1.0, accumulate=2)
    learner.step(0, [clip(0), clip(1)])
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    factors = iter([1.0, float("inf")])  # of the two backward passes
    hook = learner.network.conv_last.weight.register_hook(lambda gradient: gradient * next(factors))
    result = learner.step(1, [clip(2), clip(3)])
    hook.remove()
    assert result.overflow and not result.applied and learner.scaler.get_scale() == 32768
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.tensors().items())
    assert learner.step(2, [clip(4), clip(5)]).applied
