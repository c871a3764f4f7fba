"""`torch.compile` of the network's parts: one graph each, forward and backward as without it.

The backend "aot_eager" traces forward and backward like the real one and needs no compiler; "inductor" is marked slow.
"""

import copy
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from model.flow import Flows
from model.fusion import TemporalCrossAttnFuse
from model.layers import AttentionBlock, ResidualAttentionGroup
from model.network import NetworkConfig, SpikeVRT, build_network
from model.recompute import Run, keep, recompute
from model.spikes import SpikeEncoder
from model.temporal_attention import Chunking
from model.vrt import Resample, Stage
from model.windows import plan_windows

CHUNKING = Chunking(mode="fixed", size=8)


@pytest.fixture(autouse=True)
def no_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def stage(kind: Resample, neighbours: int = 1) -> Stage:
    """With one plain and one shifted block of each kind."""
    return Stage(
        *(8, 8, kind),
        window=(2, 2, 2),
        num_heads=2,
        mlp_ratio=2.0,
        drop_paths=[0.0] * 4,
        mutual_depth=2,
        neighbours=neighbours,
        deformable_groups=2,
        offset_limit=5.0,
    )


def flows(frames: int, size: int, distance: int = 1) -> Flows:
    def some() -> tuple[Tensor, ...]:
        return tuple(torch.randn(1, frames - k, 2, size, size) for k in range(1, distance + 1))

    return Flows(some(), some())


def assert_same(module: nn.Module, *inputs: Any, backend: str = "aot_eager", tolerance: float = 1e-6) -> None:
    """Outputs and gradients with and without compilation; without graph breaks, or compilation fails."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():  # no zeros, at which parts of the gradient vanish
            parameter.add_(torch.randn_like(parameter) * 0.1)
    compiled = copy.deepcopy(module)
    compiled.compile(backend=backend, fullgraph=True, dynamic=False)
    results = [_run(module, inputs), _run(compiled, inputs)]
    for eager, fast in zip(*results, strict=True):
        assert eager.abs().max() > 0
        torch.testing.assert_close(fast, eager, rtol=0, atol=tolerance * eager.abs().max().item())
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def _run(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    first = inputs[0].clone().requires_grad_()
    out = module(first, *inputs[1:])
    outs = out if isinstance(out, list) else [out]
    sum((x * torch.linspace(-1, 1, x.numel()).view(x.shape)).sum() for x in outs).backward()
    return [x.detach() for x in outs] + [first.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize(
    ("kind", "moving", "run"),
    [
        ("none", True, keep),
        ("none", True, recompute),
        ("down", True, recompute),
        ("down", False, keep),
        ("up", False, recompute),
        ("up", True, keep),
    ],
)
def test_a_stage_is_one_graph(
    kind: Resample, moving: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.vrt._CPU_COLUMNS", 1)  # the alignment goes sample by sample
    size = {"none": 4, "down": 2, "up": 8}[kind]
    x = torch.randn(1, 8, 3, 4, 4)
    assert_same(stage(kind), x, flows(3, size) if moving else None, run)


def test_a_stage_that_aligns_four_neighbours_is_one_graph() -> None:
    assert_same(stage("none", neighbours=2), torch.randn(1, 8, 4, 4, 4), flows(4, 4, distance=2))


@pytest.mark.parametrize("run", [keep, recompute])
def test_a_group_of_stage_8_is_one_graph(run: Run) -> None:
    group = ResidualAttentionGroup(8, (1, 2, 2), 2, 2.0, [0.0, 0.0])
    assert_same(group, torch.randn(1, 3, 5, 4, 8), run)  # 5 rows: the windows are padded


def test_a_fusion_is_one_graph() -> None:
    fuse = TemporalCrossAttnFuse(8, 8, 2, CHUNKING)
    assert_same(fuse, torch.randn(1, 8, 3, 6, 6), torch.randn(1, 8, 3, 3, 3))


def test_the_spike_encoder_is_one_graph() -> None:
    assert_same(SpikeEncoder(3, (8, 8, 8, 8), (1, 2, 2), 2, CHUNKING), torch.randn(1, 3, 2, 10, 16))


def test_the_network_compiles_its_full_size_pieces_and_keeps_its_names(
    tiny: Callable[..., NetworkConfig],
) -> None:
    network = build_network(tiny(), num_bins=3)
    names = list(network.state_dict())
    asked: dict[str, dict[str, Any]] = {}
    for name, module in network.named_modules():
        module.compile = lambda name=name, **options: asked.update({name: options})
    SpikeVRT.compile(network, dynamic=False)
    blocks = {name for name, module in network.named_modules() if isinstance(module, AttentionBlock)}
    blocks = {name for name in blocks if name.startswith(("stage1.", "stage7.", "stage8."))}
    assert len(blocks) >= 6
    pieces = blocks | {f"stage{i}.pa_{kind}" for i in (1, 7) for kind in ("deform", "fuse")}
    assert asked.keys() == pieces | {"spike_encoder"} | {f"fusions.{i}" for i in range(4)}
    assert all(options == {"dynamic": False} for options in asked.values())
    assert list(network.state_dict()) == names


def test_blocks_of_one_shape_share_a_graph() -> None:
    def block(drop_path: float) -> AttentionBlock:
        return AttentionBlock(8, (1, 2, 2), 2, 2.0, mutual=False, drop_path=drop_path)

    plan = plan_windows((3, 4, 4), (1, 2, 2), shifted=True, device="cpu")
    for rate in (0.1, 0.2, 0.3):
        module = block(rate).train()
        module.compile(backend="aot_eager", fullgraph=True, dynamic=False)
        module(torch.randn(1, 3, 4, 4, 8, requires_grad=True), plan).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("run", [keep, recompute])
def test_a_stage_compiled_to_machine_code_gives_the_same(run: Run) -> None:
    assert_same(
        stage("none"), torch.randn(1, 8, 3, 4, 4), flows(3, 4), run, backend="inductor", tolerance=1e-5
    )
