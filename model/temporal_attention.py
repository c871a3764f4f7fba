"""Attention over time at each pixel, in spatial chunks that bound the memory.

Features are (B, C, T, H, W) outside and channels-last (B, T, H, W, C) inside. Pixels do not see each other, so any
cut of the image gives the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ChunkShape = Literal["square", "wide", "tall"]

_FEW_PAIRS = 64  # pairs of frames up to which a GPU attends faster without its attention kernels


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunking:
    """How large a piece of the image is attended to at once.

    Adaptive: the largest tile with batch * height * width <= max_batch_tokens. Fixed: `size`**2 pixels. Wide tiles are
    four times as wide as high, tall ones the other way round.

    Raises:
        ValueError: if a field is out of range.
    """

    mode: Literal["adaptive", "fixed"] = "adaptive"
    shape: ChunkShape = "square"
    size: int = 64
    # CUDA attention kernels take no more than 65535 sequences at once.
    max_batch_tokens: int = 49152

    def __post_init__(self) -> None:
        if self.mode not in ("adaptive", "fixed"):
            raise ValueError(f"mode {self.mode!r} is not adaptive or fixed")
        if self.shape not in ("square", "wide", "tall"):
            raise ValueError(f"shape {self.shape!r} is not square, wide or tall")
        for name in ("size", "max_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")

    def tile(self, batch: int, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels of the chunks of an image of this size."""
        pixels = self.size**2 if self.mode == "fixed" else max(self.max_batch_tokens // batch, 1)
        if self.mode == "adaptive" and height * width <= pixels:
            return height, width
        side = max(int(pixels**0.5), 1)
        rows, columns = {
            "square": (side, side),
            "wide": (max(side // 2, 1), side * 2),
            "tall": (side * 2, max(side // 2, 1)),
        }[self.shape]
        if rows * columns > pixels:  # only when side is 1
            rows = columns = 1
        return min(rows, height), min(columns, width)


def in_chunks(function: Callable[..., Tensor], chunking: Chunking, *videos: Tensor) -> Tensor:
    """Call `function` on matching tiles of the videos (B, T, H, W, C) and put its results together.

    With more than one tile, what a tile keeps for its backward is computed again there. So memory is bounded by a
    tile in training too. `function` must draw no random numbers.
    """
    batch, _, height, width, _ = videos[0].shape
    rows, columns = chunking.tile(batch, height, width)
    if (rows, columns) == (height, width):
        return function(*videos)
    recompute = torch.is_grad_enabled()

    def apply(*tiles: Tensor) -> Tensor:
        if recompute:
            return checkpoint(function, *tiles, use_reentrant=False, preserve_rng_state=False)
        return function(*tiles)

    bands = zip(*(video.split(rows, dim=2) for video in videos), strict=True)
    return torch.cat(
        [
            torch.cat(
                [apply(*tiles) for tiles in zip(*(part.split(columns, dim=3) for part in band), strict=True)],
                dim=3,
            )
            for band in bands
        ],
        dim=2,
    )


class TemporalAttention(nn.Module):
    """Multi-head attention over time at each pixel: queries from one video, keys and values from another.

    Each head takes its learned `slope` times the distance in frames off its logits (Press et al., "Train Short, Test
    Long", 2022, section 3). Attention alone cannot tell which spikes belong to which frame. Starting slopes run from
    8, which sees its own frame only, to 1/8, which sees all, and the distance is defined for any number of frames.

    Args:
        channels: width of the query and of the result, a multiple of `num_heads`.
        context_channels: width of the video attended to.
        num_heads: attention heads.
    """

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context_channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.slope = nn.Parameter(2.0 ** torch.linspace(3, -3, num_heads))

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """(B, T, H, W, C) and (B, T', H, W, C') -> (B, T, H, W, C)."""
        q = self.query(query).unflatten(-1, (self.num_heads, -1))
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        bias = self._distance_bias(q.shape[1], k.shape[1])
        few = q.shape[1] * k.shape[1] <= _FEW_PAIRS
        attend = attend_by_products if few and q.device.type == "cuda" else attend_by_kernel
        return self.proj(attend(q, k, v, bias).flatten(4))

    def _distance_bias(self, frames: int, context_frames: int) -> Tensor:
        """(1, heads, T, T'); a context with fewer frames is spread evenly over the same time."""
        time = torch.arange(frames, device=self.slope.device)
        context_time = torch.arange(context_frames, device=self.slope.device) * (frames / context_frames)
        distance = (time[:, None] - context_time).abs()
        return -self.slope[None, :, None, None] * distance.to(self.slope.dtype)


def attend_by_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v over the frames of each pixel, by torch's attention kernels.

    Args:
        q: (B, T, H, W, heads, d).
        k: (B, T', H, W, heads, d).
        v: like `k`.
        bias: (1, heads, T, T'), added to the logits.
    """
    sequences = [x.permute(0, 2, 3, 4, 1, 5).flatten(0, 2) for x in (q, k, v)]  # (B * H * W, heads, T, d)
    out = F.scaled_dot_product_attention(*sequences, attn_mask=bias.to(q.dtype))
    if torch.compiler.is_exporting():  # to kernels that leave it in another order than this one
        out = out.contiguous()
    return out.unflatten(0, (q.shape[0], *q.shape[2:4])).permute(0, 4, 1, 2, 3, 5)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The same as sums of products, frame against frame.

    A kernel's tile of 64 frames is mostly empty with five. This moves T' times the features through memory instead,
    but permutes nothing, and `torch.compile` fuses it into two loops.
    """
    exact = torch.promote_types(q.dtype, torch.float32)
    logits = (q.unsqueeze(2) * k.unsqueeze(1)).sum(-1, dtype=exact)  # (B, T, T', H, W, heads)
    bias = bias.permute(0, 2, 3, 1)[:, :, :, None, None]
    weights = (q.shape[-1] ** -0.5 * logits + bias).softmax(2).to(v.dtype)
    return (weights.unsqueeze(-1) * v.unsqueeze(1)).sum(2)


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear over the last axis."""

    def __init__(self, channels: int, ratio: float = 2.0) -> None:
        hidden = int(channels * ratio)
        super().__init__(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
