"""Bringing spike features into the features of the RGB frames."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.temporal_attention import Chunking, FeedForward, TemporalAttention, in_chunks


class TemporalCrossAttnFuse(nn.Module):
    """RGB features look up spike features over time at each pixel.

    rgb + attention(Q = LN(rgb), K = V = LN(spikes)), then + FFN(LN(.)). Both last projections start at zero: before
    training the result equals `rgb` bit for bit, so an RGB checkpoint keeps its output.

    Args:
        channels: width of the RGB features, a multiple of `num_heads`.
        spike_channels: width of the spike features.
        num_heads: attention heads.
        chunking: how the image is cut.
    """

    def __init__(self, channels: int, spike_channels: int, num_heads: int, chunking: Chunking) -> None:
        super().__init__()
        self.chunking = chunking
        self.norm_rgb = nn.LayerNorm(channels)
        self.norm_spikes = nn.LayerNorm(spike_channels)
        self.attn = TemporalAttention(channels, spike_channels, num_heads)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels)
        for last in (self.attn.proj, self.mlp[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, rgb: Tensor, spikes: Tensor) -> Tensor:
        """The fused features, shaped like `rgb`.

        Args:
            rgb: (B, C, T, H, W).
            spikes: (B, C', T', h, w); resampled bilinearly to H, W where it differs.
        """
        spikes = resample_to(spikes, rgb.shape[-2:])
        fused = in_chunks(
            self._fuse, self.chunking, rgb.permute(0, 2, 3, 4, 1), spikes.permute(0, 2, 3, 4, 1)
        )
        return fused.permute(0, 4, 1, 2, 3)

    def _fuse(self, rgb: Tensor, spikes: Tensor) -> Tensor:
        rgb, spikes = rgb.contiguous(), spikes.contiguous()  # one copy here, or one in every layer
        rgb = rgb + self.attn(self.norm_rgb(rgb), self.norm_spikes(spikes))
        return rgb + self.mlp(self.norm_mlp(rgb))


class RGBOnly(nn.Module):
    """The fusion of a network without spikes."""

    def forward(self, rgb: Tensor, spikes: Tensor | None) -> Tensor:
        return rgb


def resample_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, T, h, w) frame by frame to (B, C, T, *size), bilinearly."""
    if x.shape[-2:] == size:
        return x
    frames = x.transpose(1, 2).flatten(0, 1)
    frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
