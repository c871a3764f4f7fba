"""The stages of the video restoration transformer (Liang et al., "VRT: A Video Restoration Transformer", 2022).

Between stages a video is (B, C, T, H, W); inside a stage it is channels-last. Module names follow the published
state dict, so its checkpoints load.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.deform import flow_guided_deform_conv, has_kernels
from model.flow import Flows, warp
from model.layers import AttentionGroup, GatedMLP
from model.low_rank import Linear
from model.recompute import Run, keep
from model.windows import Size3

Resample = Literal["none", "down", "up"]

# Elements of the deformable convolution's columns made at once: 8 MiB stays in a CPU's cache, 1 GiB fills a GPU.
_CPU_COLUMNS = 2**21
_GPU_COLUMNS = 2**28


class SpaceToChannels(nn.Module):
    """2x2 pixels to channels: (B, D, H, W, C) -> (B, D, H / 2, W / 2, 4C), ordered [column][row][channel]."""

    def forward(self, x: Tensor) -> Tensor:
        batch, depth, height, width, channels = x.shape
        x = x.reshape(batch, depth, height // 2, 2, width // 2, 2, channels)
        return x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class ChannelsToSpace(nn.Module):
    """The inverse of SpaceToChannels: (B, D, H, W, 4C) -> (B, D, 2H, 2W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        batch, depth, height, width, _ = x.shape
        x = x.reshape(batch, depth, height, width, 2, 2, -1).permute(0, 1, 2, 5, 3, 4, 6)
        return x.reshape(batch, depth, 2 * height, 2 * width, -1)


def resample(kind: Resample, in_channels: int, out_channels: int) -> nn.Sequential:
    """The first layer of a stage: change of resolution, LayerNorm, and a linear map where the width changes."""
    if kind == "none":
        return nn.Sequential(nn.Identity(), nn.LayerNorm(out_channels))
    move, width = (
        (SpaceToChannels(), 4 * in_channels) if kind == "down" else (ChannelsToSpace(), in_channels // 4)
    )
    return nn.Sequential(move, nn.LayerNorm(width), nn.Linear(width, out_channels))


class FlowGuidedDeformConv(nn.Module):
    """Align neighbour frames with a 3x3 deformable convolution whose offsets start from the optical flow.

    offset = limit * tanh(residual) + flow (VRT, section 3.3, equations 8 and 9; Chan et al., "BasicVSR++", 2022).

    Args:
        channels: C of one frame.
        neighbours: frames aligned together; the convolution has as many weight groups.
        groups: offset groups over the neighbours' channels.
        offset_limit: largest residual offset in pixels.
    """

    def __init__(self, channels: int, neighbours: int, groups: int, offset_limit: float) -> None:
        super().__init__()
        self.offset_limit = offset_limit
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Sequential(
            nn.Conv2d((1 + neighbours) * channels + 2 * neighbours, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, 27 * groups, 3, padding=1),
        )
        bound = (9 * channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.conv_offset[-1].weight)
        nn.init.zeros_(self.conv_offset[-1].bias)

    def forward(
        self, current: Tensor, neighbours: Sequence[Tensor], flows: Sequence[Tensor] | None
    ) -> Tensor:
        """Sample the neighbours at the places of the current frame, as (N, C, H, W).

        Args:
            current: (N, C, H, W).
            neighbours: each like `current`, nearest first.
            flows: from `current` to each neighbour, (N, 2, H, W) pixels; None is no motion.
        """
        if flows is None:
            still = current.new_zeros(len(current), 2 * len(neighbours), *current.shape[-2:])
            guide = torch.cat((*neighbours, current, still), dim=1)
        else:
            warped = [warp(x, flow) for x, flow in zip(neighbours, flows, strict=True)]
            guide = torch.cat((*warped, current, *flows), dim=1)
        residual = self.conv_offset(guide)
        motion = None if flows is None else torch.stack(tuple(flows), dim=1)
        x = neighbours[0] if len(neighbours) == 1 else torch.cat(tuple(neighbours), dim=1)
        if has_kernels(x, residual, motion, self.weight):  # they bound their memory themselves
            return self._sample(x, residual, motion)
        return self._sample_in_chunks(x, residual, motion)

    def _sample_in_chunks(self, x: Tensor, residual: Tensor, motion: Tensor | None) -> Tensor:
        """The convolution in plain PyTorch, a few samples at a time and recomputed in backward.

        Its nine copies of the features are by far the largest tensors of a stage and cheap to make again; on a CPU
        pieces that fit the cache are also several times faster than one large piece.
        """
        budget = _CPU_COLUMNS if x.device.type == "cpu" else _GPU_COLUMNS
        count = max(budget // (9 * x[0].numel()), 1)
        inputs: list[Sequence[Tensor | None]] = [x.split(count), residual.split(count)]
        inputs.append([None] * len(inputs[0]) if motion is None else motion.split(count))
        recompute = torch.is_grad_enabled()
        chunks = [
            checkpoint(self._sample, *chunk, use_reentrant=False, preserve_rng_state=False)
            if recompute
            else self._sample(*chunk)
            for chunk in zip(*inputs, strict=True)
        ]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _sample(self, x: Tensor, residual: Tensor, motion: Tensor | None) -> Tensor:
        """Convolve with the offset network's output.

        Args:
            x: (N, neighbours * C, H, W).
            residual: (N, 27 * groups, H, W): offsets before the limit, then mask logits.
            motion: (N, neighbours, 2, H, W) flows, or None.
        """
        return flow_guided_deform_conv(x, residual, motion, self.weight, self.bias, self.offset_limit)


class Stage(nn.Module):
    """One of the stages 1..7: resample, mutual and self attention, alignment of the neighbours, fusion.

    Args:
        in_channels: width of the input.
        channels: width of the stage.
        kind: resolution change at its start.
        window: (d, h, w) of the self attention; mutual attention uses (2, h, w).
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over `channels`.
        drop_paths: stochastic depth rate of each block of the stage.
        mutual_depth: how many of the blocks have mutual attention; the rest is self attention only.
        neighbours: frames aligned from either side (pa_frames / 2).
        deformable_groups: offset groups.
        offset_limit: largest residual offset in pixels of this scale.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kind: Resample,
        *,
        window: Size3,
        num_heads: int,
        mlp_ratio: float,
        drop_paths: Sequence[float],
        mutual_depth: int,
        neighbours: int,
        deformable_groups: int,
        offset_limit: float,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.reshape = resample(kind, in_channels, channels)
        self.residual_group1 = AttentionGroup(
            channels,
            (2, *window[1:]),
            num_heads,
            mlp_ratio,
            mutual=True,
            drop_paths=drop_paths[:mutual_depth],
        )
        self.linear1 = Linear(channels, channels)
        # Both groups start at the stage's first rate, as the published network does.
        self.residual_group2 = AttentionGroup(
            channels,
            window,
            num_heads,
            mlp_ratio,
            mutual=False,
            drop_paths=drop_paths[: len(drop_paths) - mutual_depth],
        )
        self.linear2 = Linear(channels, channels)
        self.pa_deform = FlowGuidedDeformConv(channels, neighbours, deformable_groups, offset_limit)
        self.pa_fuse = GatedMLP(3 * channels, 3 * channels, channels)

    def forward(self, x: Tensor, flows: Flows | None, run: Run = keep) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T, H', W'), T > neighbours.

        Args:
            x: features.
            flows: at the stage's own scale (after its resampling), None for no motion.
            run: calls the attention blocks, the alignment and the fusion.
        """
        x = self.reshape(x.permute(0, 2, 3, 4, 1))
        x = self.linear1(self.residual_group1(x, run)) + x
        x = self.linear2(self.residual_group2(x, run)) + x
        after, before = self._align(x.permute(0, 1, 4, 2, 3).contiguous(), flows, run)
        x = torch.cat((x, after.permute(0, 1, 3, 4, 2), before.permute(0, 1, 3, 4, 2)), dim=-1)
        return run(self.pa_fuse, x).permute(0, 4, 1, 2, 3)

    def _align(self, x: Tensor, flows: Flows | None, run: Run = keep) -> tuple[Tensor, Tensor]:
        """The next and the previous frames aligned to each frame of x (B, T, C, H, W); zeros where there is none.

        All frames and both directions go through one batched convolution.
        """
        batch, frames = x.shape[:2]
        current = torch.cat((x[:, :-1], x[:, 1:])).flatten(0, 1)
        sides = [_neighbours(x[:, k:], x[:, : frames - k], k) for k in range(1, self.neighbours + 1)]
        guides = None
        if flows is not None:
            guides = [
                _neighbours(flows.backward[k - 1], flows.forward[k - 1], k)
                for k in range(1, self.neighbours + 1)
            ]
        aligned = run(self.pa_deform, current, sides, guides).view(2, batch, frames - 1, *x.shape[2:])
        after, before = aligned.unbind(0)
        return F.pad(after, (0, 0, 0, 0, 0, 0, 0, 1)), F.pad(before, (0, 0, 0, 0, 0, 0, 1, 0))


def _neighbours(after: Tensor, before: Tensor, distance: int) -> Tensor:
    """What lies `distance` frames after, then before, as (2 * B * (T - 1), ...); zeros beyond the clip's ends.

    Args:
        after: (B, T - distance, ...), entry i belongs to frame i.
        before: (B, T - distance, ...), entry i belongs to frame i + distance.
        distance: in frames.
    """
    if distance > 1:
        space = (0, 0) * (after.ndim - 2)
        after, before = F.pad(after, (*space, 0, distance - 1)), F.pad(before, (*space, distance - 1, 0))
    return torch.cat((after, before)).flatten(0, 1)
