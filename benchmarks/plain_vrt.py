"""The published deblurring VRT as its code computes it: what our network is measured against.

Liang et al., "VRT: A Video Restoration Transformer" (2022), upscale 1. The same mathematics and state-dict names as
`model.network` without fusion, spelled the way the published implementation spells it: one mask per window, cached;
score matrices in memory; copies for every padding, roll and window; two calls for mutual attention and for SpyNet; a
loop over frames and directions with one deformable convolution each; activations recomputed block by block. Not for
use: it is kept slow on purpose, and shares no code with the network.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.network import NetworkConfig

try:
    from torchvision.ops import deform_conv2d as _torchvision_deform_conv2d
except ImportError:
    _torchvision_deform_conv2d = None

Size3 = tuple[int, int, int]
Recompute = Literal["never", "default", "lists", "all"]

DEFORM_OPERATOR = "torchvision" if _torchvision_deform_conv2d is not None else "gather"
"""Who convolves: torchvision's compiled operator, as published, or where it is missing a gather in plain PyTorch."""

KEPT_ATTENTION = frozenset({2, 3, 4})
KEPT_MLPS = frozenset({1, 2, 3, 4, 5, 9})
"""Entries of `depths` whose activations the published GoPro training keeps; it recomputes those of all others."""


def deform_conv2d(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """The modulated 3x3 deformable convolution with padding 1, in float32 or wider, as torchvision's does on CUDA.

    `gathered_deform_conv2d` tells the arguments.
    """
    kind = torch.promote_types(offset.dtype, torch.float32)
    x, offset, weight, bias, mask = (part.to(kind) for part in (x, offset, weight, bias, mask))
    with torch.autocast(x.device.type, enabled=False):
        if _torchvision_deform_conv2d is None:
            return gathered_deform_conv2d(x, offset, weight, bias, mask)
        return _torchvision_deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)


def gathered_deform_conv2d(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """The same in plain PyTorch: four gathers, a weighted sum, a matrix product.

    Args:
        x: (B, C, H, W).
        offset: (B, OG * 9 * 2, H, W) pixels, channels ordered [group][tap][y, x].
        weight: (O, C / G, 3, 3).
        bias: (O,).
        mask: (B, OG * 9, H, W).
    """
    batch, channels, height, width = x.shape
    offset_groups = offset.shape[1] // 18
    offset = offset.view(batch, offset_groups, 9, 2, height, width)
    mask = mask.view(batch, offset_groups, 9, height, width)
    tap = torch.arange(9, device=x.device)
    row = torch.arange(height, device=x.device).view(-1, 1) + (tap // 3 - 1).view(9, 1, 1)
    column = torch.arange(width, device=x.device) + (tap % 3 - 1).view(9, 1, 1)
    y, x_position = offset[:, :, :, 0] + row, offset[:, :, :, 1] + column
    top, left = y.floor(), x_position.floor()
    pixels = x.view(batch, offset_groups, channels // offset_groups, height * width)

    samples = 0.0
    for corner_y, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for corner_x, weight_x in ((left, 1 - (x_position - left)), (left + 1, x_position - left)):
            inside = (corner_y >= 0) & (corner_y < height) & (corner_x >= 0) & (corner_x < width)
            factor = weight_y * weight_x * inside * mask
            index = corner_y.clamp(0, height - 1) * width + corner_x.clamp(0, width - 1)
            index = index.long().view(batch, offset_groups, 1, -1).expand(-1, -1, pixels.shape[2], -1)
            samples = samples + pixels.gather(3, index) * factor.view(batch, offset_groups, 1, -1)

    groups = channels // weight.shape[1]
    columns = samples.reshape(batch, groups, weight.shape[1] * 9, height * width)
    out = weight.view(groups, weight.shape[0] // groups, -1) @ columns
    return out.view(batch, -1, height, width) + bias.view(-1, 1, 1)


def flow_warp(x: Tensor, flow: Tensor, mode: str = "bilinear", padding_mode: str = "zeros") -> Tensor:
    """Sample `x` (N, C, H, W) at pixel + flow (N, 2, H, W).

    Mode "nearest4" gives the four pixels around it, (N, 4C, H, W).
    """
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=flow.dtype, device=x.device),
        torch.arange(width, dtype=flow.dtype, device=x.device),
        indexing="ij",
    )
    position = torch.stack((columns, rows), dim=2) + flow.permute(0, 2, 3, 1)

    def sample(x_position: Tensor, y_position: Tensor, mode: str) -> Tensor:
        grid = torch.stack(
            (2.0 * x_position / max(width - 1, 1) - 1.0, 2.0 * y_position / max(height - 1, 1) - 1.0), dim=3
        )
        return F.grid_sample(x.to(grid.dtype), grid, mode=mode, padding_mode=padding_mode, align_corners=True)

    across, down = position[..., 0], position[..., 1]
    if mode == "nearest4":
        corners = [
            sample(i, j, "nearest")
            for i in (across.floor(), across.ceil())
            for j in (down.floor(), down.ceil())
        ]
        return torch.cat(corners, dim=1)
    return sample(across, down, mode)


class FlowLevel(nn.Module):
    """One level of SpyNet: reference, warped frame and flow so far (8 channels) to a residual flow."""

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.Sequential(
            nn.Conv2d(8, 32, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(64, 32, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(32, 16, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(16, 2, 7, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class PlainSpyNet(nn.Module):
    """Optical flow on six levels, the finest four returned, full resolution first."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(FlowLevel() for _ in range(6))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
        """Flows (N, 2, H // s, W // s), s = 1, 2, 4, 8, that bring `supporting` (N, 3, H, W) to `reference`."""
        height, width = reference.shape[-2:]
        size = (math.ceil(height / 32) * 32, math.ceil(width / 32) * 32)
        references, supportings = self._pyramid(reference, size), self._pyramid(supporting, size)
        coarsest = references[0].shape[-2:]
        flow = references[0].new_zeros(len(reference), 2, coarsest[0] // 2, coarsest[1] // 2)
        flows = []
        for level in range(6):
            up = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2.0
            if up.shape[2] != references[level].shape[2]:
                up = F.pad(up, (0, 0, 0, 1), mode="replicate")
            if up.shape[3] != references[level].shape[3]:
                up = F.pad(up, (0, 1, 0, 0), mode="replicate")
            warped = flow_warp(supportings[level], up, padding_mode="border")
            flow = self.basic_module[level](torch.cat((references[level], warped, up), dim=1)) + up
            if level >= 2:
                scale = 2 ** (5 - level)
                out = F.interpolate(
                    flow, size=(height // scale, width // scale), mode="bilinear", align_corners=False
                )
                out[:, 0] *= (width // scale) / (size[1] // scale)
                out[:, 1] *= (height // scale) / (size[0] // scale)
                flows.insert(0, out)
        return flows

    def _pyramid(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Normalised frames, coarsest first."""
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        levels = [(frames - self.mean) / self.std]
        for _ in range(5):
            levels.insert(0, F.avg_pool2d(levels[0], kernel_size=2, stride=2))
        return levels


def window_partition(x: Tensor, window: Size3) -> Tensor:
    """(B, D, H, W, C) to (B * windows, N, C), copied."""
    batch, depth, height, width, channels = x.shape
    x = x.view(
        batch,
        depth // window[0],
        window[0],
        height // window[1],
        window[1],
        width // window[2],
        window[2],
        channels,
    )
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).contiguous().view(-1, math.prod(window), channels)


def window_reverse(windows: Tensor, window: Size3, batch: int, size: Size3) -> Tensor:
    """(B * windows, N, C) to (B, D, H, W, C), copied."""
    counts = [s // w for s, w in zip(size, window, strict=True)]
    x = windows.view(batch, *counts, *window, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).contiguous().view(batch, *size, -1)


def shrink_window(size: Size3, window: Size3, shift: Size3) -> tuple[Size3, Size3]:
    """Window and shift for a video of this size: an axis no longer than the window is one window without a shift."""
    used, moved = list(window), list(shift)
    for axis in range(3):
        if size[axis] <= window[axis]:
            used[axis], moved[axis] = size[axis], 0
    return tuple(used), tuple(moved)


@functools.lru_cache
def compute_mask(
    depth: int, height: int, width: int, window: Size3, shift: Size3, device: torch.device
) -> Tensor:
    """The mask of every window of a shifted video, (windows, N, N) float32: -100 between tokens that never met."""
    regions = torch.zeros(1, depth, height, width, 1, device=device)
    count = 0

    def spans(axis: int) -> tuple[slice, slice, slice]:
        return slice(-window[axis]), slice(-window[axis], -shift[axis]), slice(-shift[axis], None)

    for d in spans(0):
        for h in spans(1):
            for w in spans(2):
                regions[:, d, h, w, :] = count
                count += 1
    tokens = window_partition(regions, window).squeeze(-1)
    apart = tokens.unsqueeze(1) - tokens.unsqueeze(2)
    return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)


class WindowAttention(nn.Module):
    """Self attention, and mutual attention in windows of two frames, on (windows, N, C)."""

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, channels: int, window: Size3, num_heads: int, mutual: bool) -> None:
        super().__init__()
        self.num_heads, self.mutual = num_heads, mutual
        self.scale = (channels // num_heads) ** -0.5
        table = torch.zeros(math.prod(2 * w - 1 for w in window), num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", _position_index(window))
        self.qkv_self = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(2 * channels if mutual else channels, channels)
        if mutual:
            self.register_buffer("position_bias", _sine_encoding(window[1], window[2], channels))
            self.qkv_mut = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self._heads(self.qkv_self(x))
        out = self._attend(q, k, v, mask, relative=True)
        if self.mutual:
            q, k, v = self._heads(self.qkv_mut(x + self.position_bias.repeat(1, 2, 1)))
            (q1, q2), (k1, k2), (v1, v2) = (part.chunk(2, dim=2) for part in (q, k, v))
            aligned1 = self._attend(q2, k1, v1, mask, relative=False)
            aligned2 = self._attend(q1, k2, v2, mask, relative=False)
            out = torch.cat((torch.cat((aligned1, aligned2), dim=1), out), dim=2)
        return self.proj(out)

    def _heads(self, qkv: Tensor) -> Tensor:
        """(windows, N, 3C) to q, k, v, each (windows, heads, N, C / heads)."""
        count, tokens, _ = qkv.shape
        return qkv.reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, relative: bool) -> Tensor:
        count, heads, tokens, _ = q.shape
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if relative:
            index = self.relative_position_index[:tokens, :tokens].reshape(-1)
            bias = self.relative_position_bias_table[index].reshape(tokens, tokens, -1).permute(2, 0, 1)
            scores = scores + bias.unsqueeze(0)
        if mask is not None:
            windows = len(mask)
            scores = scores.view(count // windows, windows, heads, tokens, tokens)
            scores = scores + mask[:, :tokens, :tokens].unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, heads, tokens, tokens)
        return (F.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(count, tokens, -1)


class GatedMLP(nn.Module):
    """fc2(GELU(fc11(x)) * fc12(x))."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(in_features, hidden_features)
        self.fc12 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


class AttentionBlock(nn.Module):
    """Window attention and MLP with residuals on (B, D, H, W, C); the parts named in `recompute` are recomputed."""

    def __init__(
        self,
        channels: int,
        window: Size3,
        shift: Size3,
        num_heads: int,
        mlp_ratio: float,
        mutual: bool,
        drop_path: float,
        recompute: tuple[bool, bool],
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.recompute_attention, self.recompute_mlp = recompute
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, num_heads, mutual)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, int(channels * mlp_ratio), channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + _run(self._attention_part, self.recompute_attention, x, mask)
        return x + _run(self._mlp_part, self.recompute_mlp, x)

    def _attention_part(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, depth, height, width, _ = x.shape
        window, shift = shrink_window((depth, height, width), self.window, self.shift)
        x = self.norm1(x)
        extra = [-size % w for size, w in zip((depth, height, width), window, strict=True)]
        x = F.pad(x, (0, 0, 0, extra[2], 0, extra[1], 0, extra[0]), mode="constant")
        padded = tuple(x.shape[1:4])
        shifted = any(shift)
        if shifted:
            x = torch.roll(x, shifts=[-s for s in shift], dims=(1, 2, 3))
        windows = self.attn(window_partition(x, window), mask if shifted else None)
        x = window_reverse(windows, window, batch, padded)
        if shifted:
            x = torch.roll(x, shifts=shift, dims=(1, 2, 3))
        if any(extra):
            x = x[:, :depth, :height, :width]
        return self._drop(x)

    def _mlp_part(self, x: Tensor) -> Tensor:
        return self._drop(self.mlp(self.norm2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        """Stochastic depth."""
        if not self.training or self.drop_path == 0.0:
            return x
        keep = 1.0 - self.drop_path
        return x.div(keep) * torch.floor(
            keep + torch.rand(len(x), 1, 1, 1, 1, dtype=x.dtype, device=x.device)
        )


class AttentionGroup(nn.Module):
    """Attention blocks on (B, C, D, H, W), every second one shifted."""

    def __init__(
        self,
        channels: int,
        window: Size3,
        num_heads: int,
        mlp_ratio: float,
        mutual: bool,
        drop_paths: Sequence[float],
        recompute: tuple[bool, bool],
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = tuple(w // 2 for w in window)
        self.blocks = nn.ModuleList(
            AttentionBlock(
                channels,
                window,
                self.shift if i % 2 else (0, 0, 0),
                num_heads,
                mlp_ratio,
                mutual,
                rate,
                recompute,
            )
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        window, shift = shrink_window(size, self.window, self.shift)
        x = x.permute(0, 2, 3, 4, 1)
        padded = [math.ceil(s / w) * w for s, w in zip(size, window, strict=True)]
        mask = compute_mask(*padded, window, shift, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x.reshape(*x.shape[:4], -1).permute(0, 4, 1, 2, 3)


class ResidualAttentionGroup(nn.Module):
    """x + linear(group(x)) on (B, C, D, H, W)."""

    def __init__(self, channels: int, **group: object) -> None:
        super().__init__()
        self.residual_group = AttentionGroup(channels, mutual=False, **group)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.residual_group(x).transpose(1, 4)).transpose(1, 4)


class ToChannelsLast(nn.Module):
    """(B, C, D, H, W) to (B, D, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 4, 1)


class ToChannelsFirst(nn.Module):
    """(B, D, H, W, C) to (B, C, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 4, 1, 2, 3)


class Down(nn.Module):
    """(B, C, D, H, W) to (B, D, H / 2, W / 2, 4C), channels ordered [column][row][channel]."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, depth, height, width = x.shape
        x = x.reshape(batch, channels, depth, height // 2, 2, width // 2, 2)
        return x.permute(0, 2, 3, 5, 6, 4, 1).reshape(batch, depth, height // 2, width // 2, -1)


class Up(nn.Module):
    """(B, 4C, D, H, W) to (B, D, 2H, 2W, C), the inverse order."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, depth, height, width = x.shape
        x = x.reshape(batch, 2, 2, channels // 4, depth, height, width)
        return x.permute(0, 4, 5, 2, 6, 1, 3).reshape(batch, depth, 2 * height, 2 * width, -1)


class DeformableAlignment(nn.Module):
    """One flow-guided deformable convolution of one neighbourhood to one frame."""

    def __init__(self, channels: int, neighbours: int, groups: int, offset_limit: float) -> None:
        super().__init__()
        self.offset_limit = offset_limit
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -((9 * channels) ** -0.5), (9 * channels) ** -0.5)
        self.conv_offset = nn.Sequential(
            nn.Conv2d((1 + neighbours) * channels + 2 * neighbours, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, 27 * groups, 3, padding=1),
        )

    def forward(
        self, neighbours: list[Tensor], warped: list[Tensor], current: Tensor, flows: list[Tensor]
    ) -> Tensor:
        out = self.conv_offset(torch.cat((*warped, current, *flows), dim=1))
        first, second, mask = out.chunk(3, dim=1)
        offset = self.offset_limit * torch.tanh(torch.cat((first, second), dim=1))
        blocks = offset.chunk(len(flows), dim=1)
        offset = torch.cat(
            [
                block + flow.flip(1).repeat(1, block.shape[1] // 2, 1, 1)
                for block, flow in zip(blocks, flows, strict=True)
            ],
            dim=1,
        )
        return deform_conv2d(
            torch.cat(neighbours, dim=1), offset, self.weight, self.bias, torch.sigmoid(mask)
        )


class Stage(nn.Module):
    """One of the stages 1..7 on (B, C, D, H, W)."""

    def __init__(self, config: NetworkConfig, index: int, drop_paths: Sequence[float], recompute: Recompute):
        super().__init__()
        channels = config.embed_dims[index]
        before = config.embed_dims[index - 1]
        self.neighbours = config.pa_frames // 2
        if index == 0:
            self.reshape = nn.Sequential(ToChannelsLast(), nn.LayerNorm(channels), ToChannelsFirst())
        else:
            move, width = (Down(), 4 * before) if index < 4 else (Up(), before // 4)
            self.reshape = nn.Sequential(
                move, nn.LayerNorm(width), nn.Linear(width, channels), ToChannelsFirst()
            )
        attention, mlp = _recomputed(recompute, index)
        mutual_depth = int(config.depths[index] * config.mul_attn_ratio)
        self.residual_group1 = AttentionGroup(
            channels,
            (2, *config.window[1:]),
            config.num_heads[index],
            config.mlp_ratio,
            mutual=True,
            drop_paths=drop_paths[:mutual_depth],
            recompute=(attention, mlp),
        )
        self.linear1 = nn.Linear(channels, channels)
        # Attention is recomputed here whatever the lists say, and the rates start again from the stage's first.
        self.residual_group2 = AttentionGroup(
            channels,
            config.window,
            config.num_heads[index],
            config.mlp_ratio,
            mutual=False,
            drop_paths=drop_paths[: config.depths[index] - mutual_depth],
            recompute=(recompute != "never", mlp),
        )
        self.linear2 = nn.Linear(channels, channels)
        scale = (0, 1, 2, 3, 2, 1, 0)[index]
        self.pa_deform = DeformableAlignment(
            channels, self.neighbours, config.deformable_groups, 10.0 / 2**scale
        )
        self.pa_fuse = GatedMLP(3 * channels, 3 * channels, channels)

    def forward(self, x: Tensor, backward_flows: list[Tensor], forward_flows: list[Tensor]) -> Tensor:
        """The flows are those of this scale; entry k - 1 of a list is between frames k apart, (B, T - k, 2, H, W)."""
        x = self.reshape(x)
        x = self.linear1(self.residual_group1(x).transpose(1, 4)).transpose(1, 4) + x
        x = self.linear2(self.residual_group2(x).transpose(1, 4)).transpose(1, 4) + x
        x = x.transpose(1, 2)
        after, before = self._align(x, backward_flows, forward_flows)
        x = torch.cat((x, after, before), dim=2).permute(0, 1, 3, 4, 2)
        return self.pa_fuse(x).permute(0, 4, 1, 2, 3)

    def _align(
        self, x: Tensor, backward_flows: list[Tensor], forward_flows: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The next and the previous frames aligned to each frame of (B, T, C, H, W), frame by frame."""
        frames = x.shape[1]
        after = [torch.zeros_like(x[:, -1])]
        for i in range(frames - 2, -1, -1):
            fields = [flows[:, i] if i < flows.shape[1] else None for flows in backward_flows]
            after.insert(0, self._align_one(x, i, 1, fields))
        before = [torch.zeros_like(x[:, 0])]
        for i in range(1, frames):
            fields = [flows[:, i - k] if i >= k else None for k, flows in enumerate(forward_flows, start=1)]
            before.append(self._align_one(x, i, -1, fields))
        return torch.stack(after, dim=1), torch.stack(before, dim=1)

    def _align_one(self, x: Tensor, i: int, step: int, fields: list[Tensor | None]) -> Tensor:
        """Align the frames i + step, i + 2 * step, ... to frame i; a frame that is not there is zeros."""
        current = x[:, i]
        neighbours, warped, flows = [], [], []
        for distance, flow in enumerate(fields, start=1):
            if flow is None:
                neighbours.append(torch.zeros_like(current))
                warped.append(torch.zeros_like(current))
                flows.append(torch.zeros_like(fields[0]))
            else:
                neighbours.append(x[:, i + step * distance])
                warped.append(flow_warp(neighbours[-1], flow))
                flows.append(flow)
        return self.pa_deform(neighbours, warped, current, flows)


class PlainVRT(nn.Module):
    """The published network for deblurring.

    Args:
        config: sizes; what concerns spikes and `checkpoint_stages` is not looked at.
        recompute: activations made again in backward. "default" is the published code with its switches off, which
            still recomputes attention in the second group of stages 1..7; "lists" is its GoPro training; "never" and
            "all" are the extremes.
    """

    def __init__(self, config: NetworkConfig, recompute: Recompute = "default") -> None:
        super().__init__()
        self.neighbours = config.pa_frames // 2
        dims, depths = config.embed_dims, config.depths
        rates = [config.drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        drop_paths = [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]
        self.conv_first = nn.Conv3d(27, dims[0], (1, 3, 3), padding=(0, 1, 1))
        self.spynet = PlainSpyNet()
        for i in range(7):
            self.add_module(f"stage{i + 1}", Stage(config, i, drop_paths[i], recompute))
        self.stage8 = nn.ModuleList(
            [
                nn.Sequential(
                    ToChannelsLast(), nn.LayerNorm(dims[6]), nn.Linear(dims[6], dims[7]), ToChannelsFirst()
                )
            ]
        )
        for i in range(7, len(dims)):
            self.stage8.append(
                ResidualAttentionGroup(
                    dims[i],
                    window=(1, *config.window[1:]) if i in config.indep_reconsts else config.window,
                    num_heads=config.num_heads[i],
                    mlp_ratio=config.mlp_ratio,
                    drop_paths=drop_paths[i],
                    recompute=_recomputed(recompute, i),
                )
            )
        self.norm = nn.LayerNorm(dims[-1])
        self.conv_after_body = nn.Linear(dims[-1], dims[0])
        self.conv_last = nn.Conv3d(dims[0], 3, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, blurry: Tensor) -> Tensor:
        """(B, T, 3, H, W) to the same.

        T must be above pa_frames / 2, H and W multiples of 8, above 32 and at least 8 windows.
        """
        backward_flows, forward_flows = self._flows(blurry)
        after, before = _align_images(blurry, backward_flows[0], forward_flows[0])
        first = self.conv_first(torch.cat((blurry, after, before), dim=2).transpose(1, 2))
        body = self.conv_after_body(self._features(first, backward_flows, forward_flows).transpose(1, 4))
        x = first + body.transpose(1, 4)
        return self.conv_last(x).transpose(1, 2) + blurry

    def _features(self, x: Tensor, backward_flows: list[Tensor], forward_flows: list[Tensor]) -> Tensor:
        def flows(scale: int) -> tuple[list[Tensor], list[Tensor]]:
            return backward_flows[scale::4], forward_flows[scale::4]

        x1 = self.stage1(x, *flows(0))
        x2 = self.stage2(x1, *flows(1))
        x3 = self.stage3(x2, *flows(2))
        x4 = self.stage4(x3, *flows(3))
        x = self.stage5(x4, *flows(2))
        x = self.stage6(x + x3, *flows(1))
        x = self.stage7(x + x2, *flows(0))
        x = x + x1
        for layer in self.stage8:
            x = layer(x)
        return self.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    def _flows(self, blurry: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Backward and forward flows: entry 4 * (k - 1) + s is between frames k apart at scale 1 / 2**s."""
        batch, frames, channels, height, width = blurry.shape
        earlier = blurry[:, :-1].reshape(-1, channels, height, width)
        later = blurry[:, 1:].reshape(-1, channels, height, width)
        backward = [f.view(batch, frames - 1, *f.shape[1:]) for f in self.spynet(earlier, later)]
        forward = [f.view(batch, frames - 1, *f.shape[1:]) for f in self.spynet(later, earlier)]
        for distance in range(2, self.neighbours + 1):
            for scale in range(4):
                shorter = 4 * (distance - 2) + scale
                backward.append(_compose(backward[shorter], backward[scale][:, distance - 1 :]))
                forward.append(_compose(forward[shorter][:, 1:], forward[scale]))
        return backward, forward


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """Go along `first` and from there along `second`, frame by frame, as far as both reach."""
    count = min(first.shape[1], second.shape[1])
    return torch.stack(
        [first[:, i] + flow_warp(second[:, i], first[:, i]) for i in range(count)],
        dim=1,
    )


def _align_images(frames: Tensor, backward: Tensor, forward: Tensor) -> tuple[Tensor, Tensor]:
    """The four nearest pixels of the next and of the previous frame for each of (B, T, 3, H, W), frame by frame."""
    count = frames.shape[1]
    missing = torch.zeros_like(frames[:, 0]).repeat(1, 4, 1, 1)
    after, before = [missing], [missing]
    for i in range(count - 2, -1, -1):
        after.insert(0, flow_warp(frames[:, i + 1], backward[:, i], "nearest4"))
    for i in range(1, count):
        before.append(flow_warp(frames[:, i - 1], forward[:, i - 1], "nearest4"))
    return torch.stack(after, dim=1), torch.stack(before, dim=1)


def _run(part: Callable[..., Tensor], recompute: bool, *args: Tensor) -> Tensor:
    # Reentrant is what the published call, which does not say, meant in the PyTorch of its time.
    if recompute and torch.is_grad_enabled():
        return checkpoint(part, *args, use_reentrant=True)
    return part(*args)


def _recomputed(recompute: Recompute, index: int) -> tuple[bool, bool]:
    """Whether the blocks of an entry of `depths` recompute their attention and their MLP."""
    if recompute == "lists":
        return index not in KEPT_ATTENTION, index not in KEPT_MLPS
    return recompute == "all", recompute == "all"


def _position_index(window: Size3) -> Tensor:
    """Row of the bias table for each pair of tokens, (N, N)."""
    axes = torch.meshgrid(*(torch.arange(w) for w in window), indexing="ij")
    tokens = torch.stack([axis.flatten() for axis in axes], dim=1)
    apart = tokens.unsqueeze(1) - tokens.unsqueeze(0)
    apart = apart + torch.tensor([w - 1 for w in window])
    rows, columns = 2 * window[1] - 1, 2 * window[2] - 1
    return (apart * torch.tensor([rows * columns, columns, 1])).sum(-1)


def _sine_encoding(height: int, width: int, channels: int) -> Tensor:
    """Position of the pixels of a window, (1, height * width, channels): y half first, sine and cosine in turn."""
    ones = torch.ones(1, height, width)
    y = ones.cumsum(1) / (height + 1e-6) * (2 * math.pi)
    x = ones.cumsum(2) / (width + 1e-6) * (2 * math.pi)
    feature = torch.arange(channels // 2, dtype=torch.float32)
    period = 10000 ** (2 * feature.div(2, rounding_mode="floor") / (channels // 2))
    halves = []
    for position in (y, x):
        angle = position.unsqueeze(-1) / period
        halves.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=4).flatten(3))
    return torch.cat(halves, dim=3).flatten(1, 2)
