"""Attention within windows whose scores never leave the cache.

The scores of a video are its largest tensors by far: 384 of them for every token and head. They are made for a few
windows at a time, forward and again in backward, so that neither the memory nor its bus sees them. On CUDA that is done
by the kernels of `attention_triton`.
"""

import functools
import importlib.util
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from model.plain_attention import plain_window_attention
from model.windows import MASKED_LOGIT

_HAS_TRITON = importlib.util.find_spec("triton") is not None

# Scores made at once: 1.6 MB stays in the second-level cache of a CPU core, 1 GB fills a GPU.
_CPU_SCORES = 400_000
_GPU_SCORES = 2**28


def window_attention(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, *, mutual: bool
) -> Tensor:
    """Multi-head attention within each window: softmax(q kᵀ / sqrt(d) + bias + mask) v, as (B, nD, nH, nW, N, C).

    Mutual attention aligns the two frames of a window to each other (VRT, section 3.2, equation 5): the first half of
    the tokens gathers the first frame's values by the queries of the second frame, the second half the other way
    round. Its mask is the one of the first frame for both.

    Args:
        qkv: (B, nD, nH, nW, N, 3C), floating, channels ordered [q, k, v][head][d].
        bias: (heads, N, N), added to the logits; None adds nothing. Receives a gradient, as `qkv` does.
        regions: (2, 2, 2, N) integers, indexed by whether a window is the last of its axis: the parts of the video
            that meet in it after a cyclic shift. Tokens of different parts hardly see each other (-100 on the logit).
            None masks nothing.
        num_heads: attention heads; d = C / num_heads.
        mutual: the two halves of the tokens are two frames; takes no bias.
    """
    if mutual and bias is not None:
        raise ValueError("mutual attention takes no bias")
    if torch.compiler.is_exporting():  # to where neither kernels nor operators of this program are
        return plain_window_attention(qkv, bias, regions, num_heads, mutual=mutual)
    if qkv.is_cuda and _HAS_TRITON:
        from model import attention_triton

        if attention_triton.supports(qkv, num_heads):
            bias = None if bias is None else bias.float()
            return attention_triton.window_attention(qkv, bias, regions, num_heads, mutual=mutual)
    return _attend(qkv.contiguous(), bias, regions, num_heads, mutual)


@torch.library.custom_op("spk::window_attention", mutates_args=())
def _attend(qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool) -> Tensor:
    out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
    windows = out.flatten(0, 3)
    for chunk in _chunks(qkv, bias, regions, num_heads, mutual):
        target = windows[chunk.windows]
        target.copy_(_from_heads(torch.bmm(chunk.shares, chunk.v), target))
    return out


@torch.library.custom_op("spk::window_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> tuple[Tensor, Tensor]:
    grad_qkv, windows_grad = torch.empty_like(qkv), grad.flatten(0, 3)
    grad_bias = qkv.new_empty(0) if bias is None else torch.zeros_like(_wide(bias))
    windows = grad_qkv.flatten(0, 3)
    scale = (qkv.shape[-1] // 3 // num_heads) ** -0.5
    for chunk in _chunks(qkv, bias, regions, num_heads, mutual):
        (out,) = _to_heads(_wide(windows_grad[chunk.windows]), 1, num_heads, mutual)
        grad_v = torch.bmm(chunk.shares.mT, out)
        grad_scores = torch._softmax_backward_data(
            torch.bmm(out, chunk.v.mT), chunk.shares, -1, chunk.shares.dtype
        )
        if bias is not None:
            for window in grad_scores.unflatten(0, (-1, num_heads)):
                grad_bias += window
        grad_q = torch.bmm(grad_scores, chunk.k).mul_(scale)
        grad_k = torch.bmm(grad_scores.mT, chunk.q).mul_(scale)
        if mutual:
            grad_q = _crossed(grad_q, num_heads)
        for part, target in zip(
            (grad_q, grad_k, grad_v), windows[chunk.windows].chunk(3, dim=-1), strict=True
        ):
            target.copy_(_from_heads(part, target))
    return grad_qkv, grad_bias if bias is None else grad_bias.to(bias.dtype)


class _Chunk(NamedTuple):
    """A few windows: queries, keys and values (n, tokens, d), and what each query takes of each key, adding up to 1."""

    windows: slice
    q: Tensor
    k: Tensor
    v: Tensor
    shares: Tensor


def _chunks(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> Iterator[_Chunk]:
    windows = qkv.flatten(0, 3)
    frames = 2 if mutual else 1
    tokens = windows.shape[1] // frames
    budget = _CPU_SCORES if qkv.device.type == "cpu" else _GPU_SCORES
    count = max(budget // (frames * num_heads * tokens**2), 1)
    scale = (qkv.shape[-1] // 3 // num_heads) ** -0.5
    masks = None if regions is None else _masks(regions[..., :tokens], _wide(qkv).dtype)
    kinds = _kinds(*qkv.shape[:4])
    bias = None if bias is None else _wide(bias)
    for start in range(0, len(windows), count):
        stop = min(start + count, len(windows))
        q, k, v = _to_heads(_wide(windows[start:stop]), 3, num_heads, mutual)
        if mutual:
            q = _crossed(q, num_heads)
        if bias is not None and stop == start + 1:
            scores = torch.baddbmm(bias, q, k.mT, alpha=scale)
        else:
            scores = torch.bmm(q, k.mT).mul_(scale)
            if bias is not None:
                scores.unflatten(0, (-1, num_heads)).add_(bias)
        masked = masks is not None and any(kinds[start:stop])
        if masked:
            for window, kind in zip(scores.unflatten(0, (stop - start, -1)), kinds[start:stop], strict=True):
                if kind:
                    window.add_(masks[kind])
        yield _Chunk(slice(start, stop), q, k, v, _shares(scores, masked))


def _shares(scores: Tensor, masked: bool) -> Tensor:
    """Softmax over the last axis, in which float32 shares below 1e-30 are 0.

    A masked logit gives a share of about e^-100: too small for the result, but as a denormal number it makes every
    product that it takes part in ten times slower.
    """
    if not masked or scores.dtype != torch.float32:
        return scores.softmax(-1)
    scores = torch.maximum(scores, scores.amax(-1, keepdim=True) - 75.0, out=scores)
    return F.threshold_(scores.softmax(-1), 1e-30, 0.0)


def _to_heads(x: Tensor, parts: int, num_heads: int, mutual: bool) -> tuple[Tensor, ...]:
    """(n, N, parts * C) -> for each part (n * frames * heads, N / frames, d)."""
    frames = 2 if mutual else 1
    x = x.unflatten(1, (frames, -1)).unflatten(-1, (parts, num_heads, -1))
    return tuple(part.flatten(0, 2) for part in x.permute(3, 0, 1, 4, 2, 5).unbind(0))


def _from_heads(x: Tensor, like: Tensor) -> Tensor:
    """(n * frames * heads, N / frames, d) -> (n, N, C) = the shape of `like`."""
    count, tokens, _ = like.shape
    heads = x.shape[0] * x.shape[1] // (count * tokens)
    return x.unflatten(0, (count, -1, heads)).permute(0, 1, 3, 2, 4).reshape(like.shape)


def _crossed(x: Tensor, num_heads: int) -> Tensor:
    """The two frames of each window exchanged."""
    return x.unflatten(0, (-1, 2, num_heads)).flip(1).flatten(0, 2)


def _masks(regions: Tensor, dtype: torch.dtype) -> Tensor:
    """(2, 2, 2, N) -> (8, N, N), what is added to the logits."""
    regions = regions.flatten(0, 2)
    return (regions.unsqueeze(-1) != regions.unsqueeze(-2)).to(dtype) * MASKED_LOGIT


@functools.lru_cache(maxsize=64)
def _kinds(batch: int, depth: int, height: int, width: int) -> tuple[int, ...]:
    """Which of the 8 masks each window has, in order: 4, 2 and 1 for the last window of each axis."""
    video = [
        4 * (d == depth - 1) + 2 * (h == height - 1) + (w == width - 1)
        for d in range(depth)
        for h in range(height)
        for w in range(width)
    ]
    return tuple(video * batch)


def _wide(x: Tensor) -> Tensor:
    """Half precision widened to float32: scores and their sums need it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@_attend.register_fake
def _(qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool) -> Tensor:
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


@_attend_backward.register_fake
def _(
    grad: Tensor, qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qkv), qkv.new_empty(0) if bias is None else torch.empty_like(bias)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    qkv, bias, regions, ctx.num_heads, ctx.mutual = inputs
    ctx.save_for_backward(qkv, bias, regions)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    qkv, bias, regions = ctx.saved_tensors
    grad_qkv, grad_bias = _attend_backward(grad.contiguous(), qkv, bias, regions, ctx.num_heads, ctx.mutual)
    return grad_qkv, None if bias is None else grad_bias, None, None, None


_attend.register_autograd(_backward, setup_context=_save)


def _products(qkv_shape: torch.Size, num_heads: int, mutual: bool, count: int) -> int:
    """Floating-point operations of `count` products of the size of q kᵀ."""
    *windows, tokens, width = qkv_shape
    frames = 2 if mutual else 1
    return 2 * count * math.prod(windows) * frames * (tokens // frames) ** 2 * (width // 3)


@register_flop_formula(torch.ops.spk.window_attention)
def _(qkv_shape, bias, regions, num_heads, mutual, *, out_shape=None, **_kwargs) -> int:  # type: ignore[no-untyped-def]
    return _products(qkv_shape, num_heads, mutual, 2)


@register_flop_formula(torch.ops.spk.window_attention_backward)
def _(grad_shape, qkv_shape, bias, regions, num_heads, mutual, *, out_shape=None, **_kwargs) -> int:  # type: ignore[no-untyped-def]
    return _products(qkv_shape, num_heads, mutual, 5)
