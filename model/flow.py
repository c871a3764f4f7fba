"""Optical flow between frames (SpyNet) and warping with it.

A flow is (..., 2, H, W) in pixels of its own scale, channel 0 = x (to the right), 1 = y (down). Flows, and the grids
made of them, are never narrower than float32: bfloat16 resolves half a pixel at 100 pixels.
"""

import contextlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOW_SCALES = 4
_COARSEST = 32


class Flows(NamedTuple):
    """The flows of one scale: entry k - 1 of each list is between frames k apart, (B, T - k, 2, h, w).

    `backward[k - 1][:, i]` brings frame i + k to frame i, `forward[k - 1][:, i]` brings frame i to frame i + k.
    """

    backward: tuple[Tensor, ...]
    forward: tuple[Tensor, ...]


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half-precision tensors to float32; leave float32 and float64 alone."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """A region in which autocast is off for the device of `x`."""
    if x.device.type == "meta" or torch.compiler.is_exporting():  # which is done without autocast
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def warp(x: Tensor, flow: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Sample `x` bilinearly at pixel + flow, as (N, C, H, W) in float32 or wider.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W) in pixels, x first.
        padding_mode: what lies outside, "zeros" or "border".
    """
    x = at_least_float32(x)
    positions = _pixel_positions(flow.to(x.dtype))
    grid = _normalise(positions, x.shape[-2:])
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=padding_mode, align_corners=True)


def warp_nearest4(x: Tensor, flow: Tensor) -> Tensor:
    """The four pixels around pixel + flow, as (N, 4 * C, H, W) in float32 or wider; 0 outside the image.

    Order: (x floor, y floor), (x floor, y ceil), (x ceil, y floor), (x ceil, y ceil), each with all its channels.
    No gradient reaches the flow. Used for the input frames (Liang et al., "VRT", 2022, published network).
    """
    x = at_least_float32(x)
    batch, channels, height, width = x.shape
    positions = _pixel_positions(flow.detach().to(x.dtype))
    low, high = positions.floor(), positions.ceil()
    corners = torch.stack(
        [torch.stack((h[..., 0], v[..., 1]), dim=-1) for h in (low, high) for v in (low, high)], dim=1
    )
    grid = _normalise(corners, (height, width)).flatten(1, 2)  # the four corners stacked along the height
    out = F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return out.view(batch, channels, 4, height, width).transpose(1, 2).flatten(1, 2)


def neighbour_flows(spynet: nn.Module, frames: Tensor) -> list[Flows]:
    """Flows between neighbouring frames at scales 1, 1/2, 1/4, 1/8, both directions in one batch.

    Args:
        spynet: called with two stacks of frames (N, 3, H, W), returns one flow per scale.
        frames: (B, T, 3, H, W), RGB in [0, 1].
    """
    batch, count = frames.shape[:2]
    earlier, later = frames[:, :-1], frames[:, 1:]
    scales = spynet(torch.cat((earlier, later)).flatten(0, 1), torch.cat((later, earlier)).flatten(0, 1))
    both = [flow.view(2, batch, count - 1, *flow.shape[1:]).unbind(0) for flow in scales]
    return [Flows((backward,), (forward,)) for backward, forward in both]


def compose_flows(neighbours: Flows, distance: int) -> Flows:
    """Append the flows between frames 2..`distance` apart, each composed of a shorter one and a neighbour flow."""
    backward, forward = list(neighbours.backward), list(neighbours.forward)
    for step in range(1, distance):
        count = backward[0].shape[1] - step
        backward.append(_follow(backward[-1][:, :count], backward[0][:, step:]))
        forward.append(_follow(forward[-1][:, 1:], forward[0][:, :count]))
    return Flows(tuple(backward), tuple(forward))


def align_frames(frames: Tensor, flows: Flows | None) -> Tensor:
    """Each frame with the four nearest pixels of both neighbours, as (B, T, 9 * C, H, W).

    Channels: the frame, the next frame warped to it (4 * C), the previous one (4 * C); a missing neighbour is zeros.

    Args:
        frames: (B, T, C, H, W).
        flows: the neighbour flows at full resolution, or None for a scene taken as still.
    """
    earlier, later = frames[:, :-1], frames[:, 1:]
    neighbours = torch.cat((later, earlier))
    if flows is None:
        warped = neighbours.repeat(1, 1, 4, 1, 1)
    else:
        flow = torch.cat((flows.backward[0], flows.forward[0]))
        warped = warp_nearest4(neighbours.flatten(0, 1), flow.flatten(0, 1)).unflatten(
            0, neighbours.shape[:2]
        )
    after, before = warped.to(frames.dtype).chunk(2)
    missing = (0, 0, 0, 0, 0, 0)
    return torch.cat((frames, F.pad(after, (*missing, 0, 1)), F.pad(before, (*missing, 1, 0))), dim=2)


class SpyNet(nn.Module):
    """Coarse-to-fine optical flow (Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", 2017).

    Six levels, each refining the flow of the level below it; the finest four are returned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_FlowLevel() for _ in range(6))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
        """Flows that bring `supporting` to `reference`: four (N, 2, H // s, W // s) for s = 1, 2, 4, 8, in pixels.

        Args:
            reference: (N, 3, H, W), RGB in [0, 1].
            supporting: same shape.
        """
        with full_precision(reference):
            return self._estimate(at_least_float32(reference), at_least_float32(supporting))

    def _estimate(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
        height, width = reference.shape[-2:]
        # Below two cells of the coarsest level its flow would have no pixels.
        padded = tuple(max(-(-size // _COARSEST), 2) * _COARSEST for size in (height, width))
        references, supportings = self._pyramid(reference, padded), self._pyramid(supporting, padded)
        flow = reference.new_zeros(len(reference), 2, *(size // _COARSEST // 2 for size in padded))
        flows = []
        for level, refine in enumerate(self.basic_module):
            flow = self._refine(refine, references[level], supportings[level], flow)
            scale = 2 ** (5 - level)
            if scale < 2**FLOW_SCALES:
                flows.append(_resize_flow(flow, (height // scale, width // scale)))
        return flows[::-1]

    def _pyramid(self, frames: Tensor, size: tuple[int, ...]) -> list[Tensor]:
        """Normalised frames, coarsest first."""
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        levels = [(frames - self.mean) / self.std]
        for _ in range(5):
            levels.append(F.avg_pool2d(levels[-1], kernel_size=2, stride=2))
        return levels[::-1]

    @staticmethod
    def _refine(refine: nn.Module, reference: Tensor, supporting: Tensor, flow: Tensor) -> Tensor:
        upsampled = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2.0
        short = [want - have for want, have in zip(reference.shape[-2:], upsampled.shape[-2:], strict=True)]
        upsampled = F.pad(upsampled, (0, short[1], 0, short[0]), mode="replicate")
        warped = warp(supporting, upsampled, padding_mode="border")
        return refine(torch.cat((reference, warped, upsampled), dim=1)) + upsampled


class _FlowLevel(nn.Module):
    """The residual flow of one pyramid level from reference, warped frame and flow so far (8 channels)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [nn.Conv2d(widths[i], widths[i + 1], kernel_size=7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


def _follow(first: Tensor, second: Tensor) -> Tensor:
    """The flow that goes along `first` and from there along `second`, each (B, N, 2, h, w)."""
    return first + warp(second.flatten(0, 1), first.flatten(0, 1)).unflatten(0, first.shape[:2])


def _resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the flow to (height, width) and rescale its vectors with it."""
    height, width = flow.shape[-2:]
    x, y = F.interpolate(flow, size=size, mode="bilinear", align_corners=False).unbind(1)
    return torch.stack((x * (size[1] / width), y * (size[0] / height)), dim=1)


def _pixel_positions(flow: Tensor) -> Tensor:
    """Pixel + flow, as (N, H, W, [x, y])."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype).view(-1, 1)
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return torch.stack((flow[:, 0] + x, flow[:, 1] + y), dim=-1)


def _normalise(positions: Tensor, size: tuple[int, ...]) -> Tensor:
    """Pixel positions (..., [x, y]) in grid_sample's align_corners=True coordinates."""
    height, width = size
    x = positions[..., 0] * (2.0 / max(width - 1, 1)) - 1.0
    y = positions[..., 1] * (2.0 / max(height - 1, 1)) - 1.0
    return torch.stack((x, y), dim=-1)
