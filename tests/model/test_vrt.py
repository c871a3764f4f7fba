import pytest
import torch

import model.vrt
from model.flow import Flows
from model.vrt import ChannelsToSpace, FlowGuidedDeformConv, SpaceToChannels, Stage


def _stage(**changes: object) -> Stage:
    arguments: dict = {
        "window": (2, 2, 2),
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "drop_paths": [0.0, 0.0],
        "mutual_depth": 1,
        "neighbours": 1,
        "deformable_groups": 2,
        "offset_limit": 10.0,
    }
    return Stage(12, 12, "none", **(arguments | changes))


def test_space_to_channels_puts_the_column_slowest() -> None:
    x = torch.arange(8.0).view(1, 1, 2, 2, 2)  # [row][column][channel]
    out = SpaceToChannels()(x)
    assert out.flatten().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    y = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(ChannelsToSpace()(SpaceToChannels()(y)), y)


def test_alignment_starts_as_a_convolution_of_the_neighbour_moved_by_the_flow() -> None:
    torch.manual_seed(0)
    align = FlowGuidedDeformConv(4, 1, 2, 10.0)
    current, neighbour = torch.randn(2, 1, 4, 8, 8)
    flow = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    out = align(current, [neighbour], [flow])
    shifted = torch.zeros_like(neighbour)
    shifted[..., :7, :6] = neighbour[..., 1:, 2:]  # what lies one row down and two columns to the right
    want = torch.nn.functional.conv2d(shifted, align.weight, align.bias, padding=1) / 2  # masks start at 1/2
    torch.testing.assert_close(out[..., 1:6, 1:5], want[..., 1:6, 1:5], atol=1e-5, rtol=0)


def test_offsets_stay_within_the_limit_of_the_flow() -> None:
    align = FlowGuidedDeformConv(4, 1, 1, 1.0)
    align.conv_offset[-1].bias.data[:18] = 50.0  # saturated: one pixel down and to the right
    neighbour = torch.randn(1, 4, 8, 8)
    out = align(torch.zeros_like(neighbour), [neighbour], None)
    want = torch.nn.functional.conv2d(neighbour, align.weight, align.bias, padding=1) / 2
    torch.testing.assert_close(out[..., :5, :5], want[..., 1:6, 1:6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_no_flow_equals_a_flow_of_zero(neighbours: int) -> None:
    torch.manual_seed(0)
    stage = _stage(neighbours=neighbours, deformable_groups=2 * neighbours).eval()
    torch.nn.init.normal_(stage.pa_deform.conv_offset[-1].weight, std=0.1)
    stage = stage.double()
    x = torch.randn(2, 12, 5, 4, 6, dtype=torch.float64)
    zero = tuple(torch.zeros(2, 5 - k, 2, 4, 6, dtype=torch.float64) for k in range(1, neighbours + 1))
    torch.testing.assert_close(stage(x, None), stage(x, Flows(zero, zero)))


def test_a_frame_without_a_neighbour_gets_zeros() -> None:
    torch.manual_seed(0)
    stage = _stage()
    x = torch.randn(1, 3, 12, 4, 4)
    after, before = stage._align(x, None)
    assert after.shape == before.shape == (1, 3, 12, 4, 4)
    assert not after[:, 2].any()
    assert not before[:, 0].any()
    torch.testing.assert_close(after[:, 0], stage.pa_deform(x[:, 0], [x[:, 1]], None))
    torch.testing.assert_close(before[:, 2], stage.pa_deform(x[:, 2], [x[:, 1]], None))


def test_the_size_of_the_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    align = FlowGuidedDeformConv(4, 1, 2, 10.0).double()
    torch.nn.init.normal_(align.conv_offset[-1].weight)
    current, neighbour = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    flow = torch.randn(3, 2, 8, 8, dtype=torch.float64, requires_grad=True)

    def run() -> list[torch.Tensor]:
        out = align(current, [neighbour], [flow])
        return [out, *torch.autograd.grad(out.square().sum(), [flow, *align.parameters()])]

    whole = run()
    monkeypatch.setattr(model.vrt, "_CPU_COLUMNS", 1)
    for got, want in zip(run(), whole, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("kind", "factor"), [("none", 1.0), ("down", 0.5), ("up", 2.0)])
def test_a_stage_changes_the_resolution(kind: str, factor: float) -> None:
    stage = Stage(
        8,
        4,
        kind,
        window=(2, 2, 2),
        num_heads=2,
        mlp_ratio=2.0,
        drop_paths=[0.0],
        mutual_depth=1,
        neighbours=1,
        deformable_groups=1,
        offset_limit=1.0,
    )
    channels = 4 if kind == "none" else 8
    out = stage(torch.randn(1, channels, 3, 4, 8), None)
    assert out.shape == (1, 4, 3, 4 * factor, 8 * factor)
