"""Features of the spike stream on four scales."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.conv3d import Conv3d
from model.temporal_attention import Chunking, FeedForward, TemporalAttention, in_chunks


class ResidualBlock3D(nn.Module):
    """ReLU(x + Conv3d(ReLU(Conv3d(x)))), 3x3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, 3, padding=1)
        self.conv2 = Conv3d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class SpikeEncoder3D(nn.Module):
    """A pyramid of 3D convolutions over voxel grids; bins are channels, frames are depth.

    Args:
        num_bins: K of the voxel grids.
        channels: width of each scale.
        stride: (time, vertical, horizontal) between scales.
    """

    def __init__(
        self, num_bins: int, channels: Sequence[int], stride: tuple[int, int, int] = (1, 2, 2)
    ) -> None:
        super().__init__()
        widths = [num_bins, *channels]
        self.scales = nn.ModuleList()
        for i, width in enumerate(channels):
            first = Conv3d(widths[i], width, 3, stride=stride if i else 1, padding=1)
            entry = [first] if i else [first, nn.ReLU()]
            self.scales.append(nn.Sequential(*entry, ResidualBlock3D(width), ResidualBlock3D(width)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, K, T, H, W) -> for each scale i (B, C_i, T_i, H_i, W_i), sizes divided by the stride, rounded up."""
        features = []
        for scale in self.scales:
            x = scale(x)
            features.append(x)
        return features


class SpikeTemporalSA(nn.Module):
    """Self attention over time at each pixel, then an MLP, each after a LayerNorm and with a residual."""

    def __init__(self, channels: int, num_heads: int, chunking: Chunking) -> None:
        super().__init__()
        self.chunking = chunking
        self.norm1 = nn.LayerNorm(channels)
        self.attn = TemporalAttention(channels, channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> same."""
        return in_chunks(self._attend, self.chunking, x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    def _attend(self, x: Tensor) -> Tensor:
        x = x.contiguous()  # one copy here, or one in every layer
        normed = self.norm1(x)
        x = x + self.attn(normed, normed)
        return x + self.mlp(self.norm2(x))


class SpikeEncoder(nn.Module):
    """Voxel grids to four feature maps: the convolutional pyramid, then temporal attention on each scale."""

    def __init__(
        self,
        num_bins: int,
        channels: Sequence[int],
        stride: tuple[int, int, int],
        num_heads: int,
        chunking: Chunking,
    ) -> None:
        super().__init__()
        self.pyramid = SpikeEncoder3D(num_bins, channels, stride)
        self.attention = nn.ModuleList(SpikeTemporalSA(width, num_heads, chunking) for width in channels)

    def forward(self, voxels: Tensor) -> list[Tensor]:
        """(B, K, T, H, W) -> four (B, C_i, T_i, H_i, W_i), channels-last in memory."""
        voxels = voxels.contiguous(memory_format=torch.channels_last_3d)  # as tensor cores take it
        return [attend(x) for attend, x in zip(self.attention, self.pyramid(voxels), strict=True)]
