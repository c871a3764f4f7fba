"""Attention blocks over space and time, what the video transformer is built of.

Inside this module a video is channels-last: (B, D, H, W, C), with D frames. Sizes and windows are (D, H, W) tuples.
Formulas: Liang et al., "VRT: A Video Restoration Transformer" (2022), section 3; Liu et al., "Swin Transformer" (2021).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.low_rank import Linear
from model.recompute import Run, keep
from model.window_attention import window_attention
from model.windows import (
    Size3,
    WindowPlan,
    partition,
    plan_windows,
    position_encoding,
    relative_position_index,
    reverse,
    size3,
)

_KEPT_PLANS = 64  # sizes of video; a training has one, tiles of a recording a few


def init_linear(module: nn.Module) -> None:
    """Give a linear map truncated normal weights (std 0.02) and no bias, as in Swin; leave other modules alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class DropPath(nn.Module):
    """Drop a sample's branch with probability `rate` in training (Huang et al., "Stochastic Depth", 2016)."""

    kept: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.is_active = rate > 0
        # A tensor, so that one compiled graph serves blocks of all rates.
        self.register_buffer("kept", torch.tensor([1.0 - rate]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_active or not self.training:
            return x
        chosen = torch.bernoulli(self.kept.expand(len(x)))
        return x * (chosen / self.kept).to(x.dtype).view(-1, *[1] * (x.ndim - 1))


class GatedMLP(nn.Module):
    """GEGLU: fc2(GELU(fc11(x)) * fc12(x)) over the last axis (Shazeer, "GLU Variants Improve Transformer", 2020)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc11 = Linear(in_features, hidden_features)
        self.fc12 = Linear(in_features, hidden_features)
        self.fc2 = Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        content, gate = self.fc11(x), self.fc12(x)
        if (
            not torch.is_grad_enabled() or torch.compiler.is_compiling()
        ):  # a compiler sees by itself what to keep
            return self._project(content, gate)
        # The gated product is large and cheap to make again; recomputing stops before the matrix.
        return checkpoint(self._project, content, gate, use_reentrant=False, preserve_rng_state=False)

    def _project(self, content: Tensor, gate: Tensor) -> Tensor:
        return self.fc2(F.gelu(content) * gate)


class WindowAttention(nn.Module):
    """Multi-head self attention in windows and, in two-frame windows, mutual attention between the two frames.

    In mutual attention each frame's values are gathered by the queries of the other frame, which aligns it to that
    frame (VRT, section 3.2, equation 5).

    Args:
        channels: C, a multiple of `num_heads`.
        window: (d, h, w) in tokens; d = 2 with `mutual`.
        num_heads: attention heads.
        mutual: whether to add mutual attention.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, channels: int, window: Size3, num_heads: int, *, mutual: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mutual = mutual
        self.relative_position_bias_table = nn.Parameter(
            torch.empty(math.prod(2 * w - 1 for w in window), num_heads)
        )
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv_self = Linear(channels, 3 * channels)
        self.proj = Linear(2 * channels if mutual else channels, channels)
        if mutual:
            self.register_buffer("position_bias", position_encoding(window[1], window[2], channels))
            self.qkv_mut = Linear(channels, 3 * channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, plan: WindowPlan) -> Tensor:
        """Attend within each window.

        Args:
            windows: (B, nD, nH, nW, N, C).
            plan: how the windows were cut.
        """
        bias = self._relative_bias(windows.shape[-2])
        out = window_attention(self.qkv_self(windows), bias, plan.regions, self.num_heads, mutual=False)
        if self.mutual:
            qkv = self.qkv_mut(windows + self.position_bias.repeat(1, 2, 1).to(windows.dtype))
            mutual = window_attention(qkv, None, plan.regions, self.num_heads, mutual=True)
            out = torch.cat((mutual, out), dim=-1)
        return self.proj(out)

    def _relative_bias(self, tokens: int) -> Tensor:
        """(heads, tokens, tokens); a window shortened in time uses the upper left part of the index."""
        index = self.relative_position_index[:tokens, :tokens]
        return F.embedding(index, self.relative_position_bias_table).permute(2, 0, 1).contiguous()


class AttentionBlock(nn.Module):
    """Window attention and a gated MLP, each after a LayerNorm and with a residual (TMSA; VRT, equations 6 and 7)."""

    def __init__(
        self,
        channels: int,
        window: Size3,
        num_heads: int,
        mlp_ratio: float,
        *,
        mutual: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, num_heads, mutual=mutual)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, int(channels * mlp_ratio), channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        x = x + self.drop_path(self._attend(_as_autocast(self.norm1(x)), plan))
        return x + self.drop_path(self.mlp(_as_autocast(self.norm2(x))))

    def _attend(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """Attention in (shifted) windows; the video is padded with zeros, which take part as tokens."""
        size = x.shape[1:4]
        excess = [-s % w for s, w in zip(size, plan.window, strict=True)]
        if any(excess):
            x = F.pad(x, (0, 0, 0, excess[2], 0, excess[1], 0, excess[0]))
        shifts = [(axis + 1, s) for axis, s in enumerate(plan.shift) if s]
        if shifts:
            x = torch.roll(x, [-s for _, s in shifts], [axis for axis, _ in shifts])
        x = reverse(self.attn(partition(x, plan.window), plan), plan.window)
        if shifts:
            x = torch.roll(x, [s for _, s in shifts], [axis for axis, _ in shifts])
        return x[:, : size[0], : size[1], : size[2]] if any(excess) else x


class AttentionGroup(nn.Module):
    """A chain of attention blocks, every second one on shifted windows (TMSAG)."""

    def __init__(
        self,
        channels: int,
        window: Size3,
        num_heads: int,
        mlp_ratio: float,
        *,
        mutual: bool,
        drop_paths: Sequence[float],
    ) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            AttentionBlock(channels, window, num_heads, mlp_ratio, mutual=mutual, drop_path=rate)
            for rate in drop_paths
        )
        self._plans: dict[tuple[Size3, torch.device], tuple[WindowPlan, WindowPlan]] = {}

    def forward(self, x: Tensor, run: Run = keep) -> Tensor:
        """(B, D, H, W, C) -> same; `run` calls the blocks."""
        plans = self._plan(size3(x.shape[1:4]), x.device)
        for i, block in enumerate(self.blocks):
            x = run(block, x, plans[i % 2])
        return x

    def _plan(self, size: Size3, device: torch.device) -> tuple[WindowPlan, WindowPlan]:
        """How plain and shifted blocks cut a video of this size; worked out once for each size."""
        if torch.compiler.is_compiling():  # which makes a constant of it
            return self._new_plan(size, device)
        if (size, device) not in self._plans:
            if len(self._plans) == _KEPT_PLANS:
                self._plans.clear()
            self._plans[size, device] = self._new_plan(size, device)
        return self._plans[size, device]

    def _new_plan(self, size: Size3, device: torch.device) -> tuple[WindowPlan, WindowPlan]:
        with torch.inference_mode(False):  # training may come after
            plain, shifted = (
                plan_windows(size, self.window, shifted=shifted, device=device) for shifted in (False, True)
            )
        return plain, shifted


class ResidualAttentionGroup(nn.Module):
    """x + linear(group(x)) with self attention only (RTMSA)."""

    def __init__(
        self, channels: int, window: Size3, num_heads: int, mlp_ratio: float, drop_paths: Sequence[float]
    ) -> None:
        super().__init__()
        self.residual_group = AttentionGroup(
            channels, window, num_heads, mlp_ratio, mutual=False, drop_paths=drop_paths
        )
        self.linear = Linear(channels, channels)

    def forward(self, x: Tensor, run: Run = keep) -> Tensor:
        """(B, D, H, W, C) -> same; `run` calls the blocks."""
        return x + self.linear(self.residual_group(x, run))


def _as_autocast(x: Tensor) -> Tensor:
    """In autocast's precision where it is on: before all that is done to `x` on its way to the matrix products."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))
