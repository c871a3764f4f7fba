"""Window attention in PyTorch's own operators: for exported programs, which run where this code is not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.windows import MASKED_LOGIT


def plain_window_attention(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, *, mutual: bool
) -> Tensor:
    """What `window_attention` computes, with its arguments.

    Only windows that are the last of an axis need another mask than the rest. They are attended to apart, so that the
    scores of all windows, which are many times larger than the video, are nowhere needed at once.
    """
    return _attend_from(1, qkv, bias, regions, num_heads, mutual)


def _attend_from(
    axis: int, qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> Tensor:
    """Attend the last windows of each axis from `axis` on apart from the others of that axis.

    Args:
        regions: of the axes that are left, (2, ..., 2, N).
    """
    if regions is None or regions.ndim == 1:
        return _attend(qkv, _mask(bias, regions, mutual), num_heads, mutual)
    count = qkv.shape[axis]
    spans = [(0, 1, 1)] if count == 1 else [(0, count - 1, 0), (count - 1, count, 1)]
    parts = []
    for start, stop, is_last in spans:
        part = qkv.narrow(axis, start, stop - start)
        parts.append(_attend_from(axis + 1, part, bias, regions.select(0, is_last), num_heads, mutual))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def _mask(bias: Tensor | None, regions: Tensor | None, mutual: bool) -> Tensor | None:
    """What is added to the logits: (1, heads or 1, N, N), or nothing."""
    if regions is None:
        return None if bias is None else bias.unsqueeze(0)
    if mutual:
        regions = regions[: len(regions) // 2]  # of the first frame, for both
    apart = (regions.unsqueeze(-1) != regions.unsqueeze(-2)).to(torch.float32) * MASKED_LOGIT
    return (apart if bias is None else bias + apart).expand(1, 1 if bias is None else -1, -1, -1)


def _attend(qkv: Tensor, mask: Tensor | None, num_heads: int, mutual: bool) -> Tensor:
    """(B, nD, nH, nW, N, 3C) -> (B, nD, nH, nW, N, C)."""
    windows = qkv.shape[:4]
    x = qkv.flatten(0, 3).unflatten(1, (2 if mutual else 1, -1)).unflatten(-1, (3, num_heads, -1))
    q, k, v = x.permute(3, 0, 1, 4, 2, 5).unbind(0)  # (n, frames, heads, N / frames, d)
    if mutual:
        q = q.flip(1)
    frames = q.shape[:2]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    x = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask
    ).contiguous()  # in whatever order a kernel leaves it
    return x.unflatten(0, frames).permute(0, 1, 3, 2, 4).reshape(*windows, qkv.shape[-2], -1)
