import pytest
import torch
from torch import Tensor

from model.flow import Flows, SpyNet, align_frames, compose_flows, neighbour_flows, warp, warp_nearest4


def _constant_flow(x: float, y: float, *shape: int) -> Tensor:
    return torch.tensor([x, y]).view(2, 1, 1).expand(*shape[:-2], 2, *shape[-2:]).contiguous()


def test_warp_fetches_the_pixel_the_flow_points_to() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    out = warp(x, _constant_flow(1.0, 0.5, 1, 3, 4))
    want = torch.tensor([[3.0, 4.0, 5.0, 0.0], [7.0, 8.0, 9.0, 0.0], [4.5, 5.0, 5.5, 0.0]])
    torch.testing.assert_close(out[0, 0], want, atol=1e-5, rtol=0)


def test_warp_can_repeat_the_border() -> None:
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    out = warp(x, _constant_flow(2.0, 0.0, 1, 2, 4), padding_mode="border")
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([2.0, 3.0, 3.0, 3.0]))


def test_warp_keeps_positions_in_float32() -> None:
    x = torch.arange(304.0).view(1, 1, 1, 304).expand(1, 1, 2, 304)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = warp(x, _constant_flow(0.25, 0.0, 1, 2, 304))
    torch.testing.assert_close(out[0, 0, 0, :303], x[0, 0, 0, :303] + 0.25, atol=1e-3, rtol=0)


def test_nearest4_gives_the_corners_x_first() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4).repeat(1, 2, 1, 1)
    x[:, 1] += 100
    out = warp_nearest4(x, _constant_flow(0.4, 0.6, 1, 3, 4))
    assert out.shape == (1, 8, 3, 4)
    # Around pixel (row 0, column 1): 1 itself, 5 below it, 2 to the right, 6 below right.
    assert out[0, :, 0, 1].tolist() == [1, 101, 5, 105, 2, 102, 6, 106]
    assert out[0, ::2, 2, 3].tolist() == [11, 0, 0, 0]


def test_nearest4_passes_no_gradient_to_the_flow() -> None:
    flow = torch.full((1, 2, 3, 4), 0.3, requires_grad=True)
    x = torch.rand(1, 1, 3, 4, requires_grad=True)
    warp_nearest4(x, flow).sum().backward()
    assert flow.grad is None
    assert x.grad is not None


def test_composes_flows_over_two_and_three_frames() -> None:
    backward = torch.stack([_constant_flow(float(i + 1), 0.0, 8, 8) for i in range(3)]).unsqueeze(0)
    forward = torch.stack([_constant_flow(0.0, -float(i + 1), 8, 8) for i in range(3)]).unsqueeze(0)
    flows = compose_flows(Flows((backward,), (forward,)), distance=3)
    assert [flow.shape[1] for flow in flows.backward] == [3, 2, 1]
    # At the left border nothing runs out of the image to the right, at the bottom nothing to the top.
    assert flows.backward[1][0, :, 0, 4, 0].tolist() == [3.0, 5.0]
    assert flows.backward[2][0, :, 0, 4, 0].tolist() == [6.0]
    assert flows.forward[1][0, :, 1, 7, 4].tolist() == [-3.0, -5.0]
    assert flows.forward[2][0, :, 1, 7, 4].tolist() == [-6.0]


def test_composition_follows_the_moved_pixel() -> None:
    second = torch.zeros(1, 2, 4, 4)
    second[:, 0, :, 2] = 7.0  # only column 2 moves on
    backward = torch.stack([_constant_flow(1.0, 0.0, 1, 4, 4), second], dim=1)
    flows = compose_flows(Flows((backward,), (backward,)), distance=2)
    torch.testing.assert_close(flows.backward[1][0, 0, 0, 0], torch.tensor([1.0, 8.0, 1.0, 1.0]))


def test_aligned_frames_hold_frame_next_previous() -> None:
    frames = torch.rand(2, 3, 3, 4, 4)
    out = align_frames(frames, None)
    assert out.shape == (2, 3, 27, 4, 4)
    assert torch.equal(out[:, :, :3], frames)
    assert torch.equal(out[:, 0, 3:15], frames[:, 1].repeat(1, 4, 1, 1))
    assert torch.equal(out[:, 1, 15:], frames[:, 0].repeat(1, 4, 1, 1))
    assert not out[:, 2, 3:15].any()
    assert not out[:, 0, 15:].any()


def test_no_flow_is_the_same_as_a_flow_of_zero() -> None:
    frames = torch.rand(1, 3, 3, 5, 6)
    zero = torch.zeros(1, 2, 2, 5, 6)
    assert torch.equal(align_frames(frames, None), align_frames(frames, Flows((zero,), (zero,))))


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (33, 64), (72, 40)])
def test_spynet_estimates_four_scales_of_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    flows = SpyNet()(torch.rand(1, 3, *size), torch.rand(1, 3, *size))
    assert [flow.shape[-2:] for flow in flows] == [(size[0] // s, size[1] // s) for s in (1, 2, 4, 8)]
    assert all(flow.isfinite().all() for flow in flows)


def test_both_directions_in_one_batch_equal_two_calls() -> None:
    torch.manual_seed(0)
    spynet = SpyNet().double()
    frames = torch.rand(2, 3, 3, 40, 48, dtype=torch.float64)
    flows = neighbour_flows(spynet, frames)
    for scale, want in enumerate(spynet(frames[:, 1], frames[:, 2])):
        torch.testing.assert_close(flows[scale].backward[0][:, 1], want)
    for scale, want in enumerate(spynet(frames[:, 1], frames[:, 0])):
        torch.testing.assert_close(flows[scale].forward[0][:, 0], want)


def test_spynet_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    spynet = SpyNet()
    first, second = torch.rand(2, 1, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        flows = spynet(first, second)
    for flow, want in zip(flows, spynet(first, second), strict=True):
        assert torch.equal(flow, want)
