"""Window attention on CUDA, forward and backward, without a score in memory. Needs triton, which comes with CUDA torch.

The recurrences are those of Dao, "FlashAttention-2" (2023); the rest is what windows allow. They are short (a few
hundred tokens) with thin heads (16 or 20 channels) and many, and all share one additive bias. Scores outweigh all else,
so every kernel is written for few instructions and bytes per score:

- q, k, v are read from the packed projection and results written to packed tensors, so nothing is permuted or copied.
- Logits come out of the tensor cores with the bias in them: it is what the accumulator starts from. It is laid out
  beforehand in the order in which the threads hold an accumulator (see `_pack_bias_kernel`), so a tile is a few wide
  loads. Neighbouring programs share its tiles, which stay in the cache.
- With two-byte values and thin heads one kernel computes the gradients of q, k and v of a window and head, with one
  exponential a score; those of q stay in registers while it goes through the keys. Otherwise two kernels share this.
- The gradient of the bias is a sum over windows. A program sums a tile of it over a share of the windows, in registers.

Gradients are bitwise reproducible: every sum has a fixed order, there are no atomics.
"""

# Kernels: constants are upper case, tuples grow by +, and what is decided in compiling stands apart from what is not.
# ruff: noqa: N803, RUF005, SIM102, SIM108

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from model.windows import MASKED_LOGIT

MAX_HEAD_CHANNELS = 64

FORWARD_QUERIES, FORWARD_KEYS, WARPS = 64, 128, 4
BACKWARD_QUERIES, BACKWARD_KEYS = 64, 64
FUSED_CHANNELS = 32
"""Up to so many channels a head, in two-byte values, one kernel computes the gradients of q, k and v; 0 for never."""
FUSED_TOKENS = 512
REGISTERS = 168
"""A thread's share in the larger kernels: three programs then run on a multiprocessor, worth some that do not fit."""
BIAS_PROGRAMS = 1056
"""About how many programs share the gradient of the bias: a few for each multiprocessor of a large GPU."""
DELTA_TOKENS = 32


class _Sizes(NamedTuple):
    """What the kernels are compiled for, besides their tiles."""

    tokens: int  # N, of a window
    length: int  # tokens that attend to each other: N, or N / 2 in mutual attention
    heads: int
    dim: int  # channels of a head

    @property
    def dim_pad(self) -> int:
        return max(16, triton.next_power_of_2(self.dim))

    @property
    def parts(self) -> int:
        return self.tokens // self.length

    @property
    def scale(self) -> float:
        return self.dim**-0.5

    def constants(self, queries: int, keys: int) -> dict[str, int | float]:
        return {
            "LENGTH": self.length,
            "PARTS": self.parts,
            "HEADS": self.heads,
            "DIM": self.dim,
            "DIM_PAD": self.dim_pad,
            # Logits are kept as q.k plus bias over scale until the exponential, which is one of base 2.
            "SCALE": self.scale,
            "SCALE_LOG2E": self.scale * math.log2(math.e),
            "PENALTY": -MASKED_LOGIT / self.scale,
            "QUERIES": queries,
            "KEYS": keys,
            "WARPS": WARPS,
            "num_warps": WARPS,
        }


def supports(qkv: Tensor, num_heads: int) -> bool:
    """Whether `window_attention` takes a `qkv` of this shape and dtype; it must also be on a CUDA device."""
    channels = qkv.shape[-1] // 3
    return (
        qkv.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and channels // num_heads <= MAX_HEAD_CHANNELS
    )


def window_attention(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, *, mutual: bool
) -> Tensor:
    """Multi-head attention within each window; differentiable, once, in `qkv` and `bias`.

    softmax(q k^T / sqrt(d) + bias + mask) v; the mask takes 100 off the logits between tokens of different regions.
    In mutual attention the first half of the tokens is frame 1, the second is frame 2, and the queries of each frame
    gather the values of the other one, where the result then lies (VRT, section 3.2).

    Args:
        qkv: (B, nD, nH, nW, N, 3C), float32, float16 or bfloat16; channels ordered as [q, k, v][head][channel].
        bias: (heads, N, N) float32, added to the scaled logits. With a half precision `qkv` it is rounded to float16,
            and must stay below 8000. None for no bias, and in mutual attention.
        regions: (2, 2, 2, N) integers, the region of each token of a window, by whether the window is the last of its
            axis in depth, height and width; or None if all is one region. Mutual attention takes the first half of it
            for either frame.
        num_heads: heads, that divide C; at most 64 channels each.
        mutual: whether this is mutual attention.

    Returns:
        (B, nD, nH, nW, N, C), with the dtype of `qkv`. Sums are float32; products of float32 are exact ones, not TF32.

    Raises:
        ValueError: a shape or dtype is not as above.
    """
    if qkv.ndim != 6 or qkv.shape[-1] % (3 * num_heads) or (mutual and qkv.shape[-2] % 2):
        raise ValueError(f"qkv {tuple(qkv.shape)} is not (B, nD, nH, nW, N, 3C) with {num_heads} heads")
    if not supports(qkv, num_heads):
        raise ValueError(
            f"qkv {tuple(qkv.shape)} {qkv.dtype} with {num_heads} heads: float32, float16 or bfloat16,"
            f" and at most {MAX_HEAD_CHANNELS} channels a head"
        )
    tokens = qkv.shape[-2]
    if bias is not None and (mutual or bias.shape != (num_heads, tokens, tokens)):
        raise ValueError(f"bias {tuple(bias.shape)} with {num_heads} heads, {tokens} tokens, mutual={mutual}")
    if regions is not None and regions.shape != (2, 2, 2, tokens):
        raise ValueError(f"regions {tuple(regions.shape)} is not (2, 2, 2, {tokens})")
    out, _ = _attend(qkv, bias, regions, num_heads, mutual)
    return out


@torch.library.custom_op("spk::window_attention_triton", mutates_args=())
def _attend(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> tuple[Tensor, Tensor]:
    """The result, and for each of its tokens and heads the binary logarithm of the sum of the logits' exponentials."""
    qkv = qkv.contiguous()
    sizes = _sizes(qkv, num_heads, mutual)
    out, lse = _like_results(qkv, num_heads)
    queries, keys = _fit(FORWARD_QUERIES, sizes.length), _fit(FORWARD_KEYS, sizes.length)
    with torch.cuda.device_of(qkv):
        packed = _pack(bias, sizes, queries, keys, qkv.dtype, transposed=False)
        _forward_kernel[_windows(qkv) * sizes.parts, triton.cdiv(sizes.length, queries), num_heads](
            qkv,
            packed,
            None if regions is None else regions.contiguous(),
            out,
            lse,
            *qkv.shape[1:4],
            **sizes.constants(queries, keys),
        )
    return out, lse


@_attend.register_fake
def _(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, mutual: bool
) -> tuple[Tensor, Tensor]:
    return _like_results(qkv, num_heads)


@torch.library.custom_op("spk::window_attention_triton_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    regions: Tensor | None,
    num_heads: int,
    mutual: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of `qkv` and `bias`; the latter is empty unless it is needed."""
    grad, qkv = grad.contiguous(), qkv.contiguous()
    regions = None if regions is None else regions.contiguous()
    sizes, windows = _sizes(qkv, num_heads, mutual), _windows(qkv)
    grad_qkv, delta = torch.empty_like(qkv), torch.empty_like(lse)
    grad_bias = _like_bias_gradient(qkv, num_heads, needs_bias)
    queries, keys = _fit(BACKWARD_QUERIES, sizes.length), _fit(BACKWARD_KEYS, sizes.length)
    query_tiles, key_tiles = triton.cdiv(sizes.length, queries), triton.cdiv(sizes.length, keys)
    fused = qkv.element_size() == 2 and sizes.dim <= FUSED_CHANNELS and sizes.length <= FUSED_TOKENS
    constants = sizes.constants(queries, keys)
    with torch.cuda.device_of(qkv):
        by_keys = _pack(bias, sizes, keys, queries, qkv.dtype, transposed=True)
        by_queries = _pack(bias, sizes, queries, keys, qkv.dtype, transposed=False)
        _delta_kernel[windows, triton.cdiv(sizes.tokens, DELTA_TOKENS)](
            grad,
            out,
            delta,
            TOKENS=sizes.tokens,
            HEADS=num_heads,
            HEADS_PAD=triton.next_power_of_2(num_heads),
            DIM=sizes.dim,
            DIM_PAD=sizes.dim_pad,
            BLOCK=DELTA_TOKENS,
        )
        arguments = (regions, grad, lse, delta, grad_qkv, *qkv.shape[1:4])
        units = windows * sizes.parts
        if fused:
            _fused_kernel[units, num_heads](qkv, by_keys, *arguments, **constants, maxnreg=REGISTERS)
        else:
            _keys_kernel[units, key_tiles, num_heads](qkv, by_keys, *arguments, **constants)
            _queries_kernel[units, query_tiles, num_heads](qkv, by_queries, *arguments, **constants)
        if needs_bias:
            tiles = query_tiles * key_tiles
            chunks = max(1, min(windows, triton.cdiv(BIAS_PROGRAMS, tiles * num_heads)))
            partial = grad_bias.new_empty(chunks, *grad_bias.shape)
            _bias_kernel[tiles, num_heads, chunks](
                qkv,
                by_queries,
                regions,
                grad,
                lse,
                delta,
                partial,
                *qkv.shape[1:4],
                windows,
                **constants,
                maxnreg=REGISTERS,
            )
            torch.sum(partial, 0, out=grad_bias)
    return grad_qkv, grad_bias


@_attend_backward.register_fake
def _(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    regions: Tensor | None,
    num_heads: int,
    mutual: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), _like_bias_gradient(qkv, num_heads, needs_bias)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    qkv, bias, regions, ctx.num_heads, ctx.mutual = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, bias, regions, *output)


def _differentiate(ctx, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    qkv, bias, regions, out, lse = ctx.saved_tensors
    needs_bias = bias is not None and ctx.needs_input_grad[1]
    grad_qkv, grad_bias = _attend_backward(
        grad, qkv, out, lse, bias, regions, ctx.num_heads, ctx.mutual, needs_bias
    )
    return grad_qkv, grad_bias.to(bias.dtype) if needs_bias else None, None, None, None


_attend.register_autograd(_differentiate, setup_context=_save)


def _products(qkv_shape: torch.Size, mutual: bool, count: int) -> int:
    """Floating-point operations of `count` products of the size of q k^T."""
    *windows, tokens, channels = qkv_shape
    return 2 * count * math.prod(windows) * tokens * (tokens // 2 if mutual else tokens) * (channels // 3)


@register_flop_formula(torch.ops.spk.window_attention_triton)
def _(qkv_shape, bias, regions, num_heads, mutual, *, out_shape=None, **_kwargs) -> int:
    return _products(qkv_shape, mutual, 2)


@register_flop_formula(torch.ops.spk.window_attention_triton_backward)
def _(
    grad_shape,
    qkv_shape,
    out,
    lse,
    bias,
    regions,
    num_heads,
    mutual,
    needs_bias,
    *,
    out_shape=None,
    **_kwargs,
):
    return _products(qkv_shape, mutual, 5)


def _sizes(qkv: Tensor, num_heads: int, mutual: bool) -> _Sizes:
    tokens, channels = qkv.shape[-2], qkv.shape[-1] // 3
    return _Sizes(tokens, tokens // 2 if mutual else tokens, num_heads, channels // num_heads)


def _windows(qkv: Tensor) -> int:
    return math.prod(qkv.shape[:4])


def _like_results(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    *windows, tokens, channels = qkv.shape
    out = qkv.new_empty(*windows, tokens, channels // 3)
    return out, qkv.new_empty(*windows, num_heads, tokens, dtype=torch.float32)


def _like_bias_gradient(qkv: Tensor, num_heads: int, needed: bool) -> Tensor:
    tokens = qkv.shape[-2]
    return qkv.new_empty((num_heads, tokens, tokens) if needed else (0,), dtype=torch.float32)


def _fit(block: int, length: int) -> int:
    """The largest tile up to `block` that cuts `length` without a rest, but at least 64: what tensor cores like."""
    while block > 64 and length % block:
        block //= 2
    return block


def _pack(
    bias: Tensor | None, sizes: _Sizes, rows: int, columns: int, dtype: torch.dtype, *, transposed: bool
) -> Tensor | None:
    """The bias over the scale, in tiles as the threads of a kernel hold them; its transpose for rows of keys."""
    if bias is None:
        return None
    tiles = triton.cdiv(sizes.length, rows), triton.cdiv(sizes.length, columns)
    packed = bias.new_empty(
        sizes.heads, *tiles, rows * columns, dtype=torch.float32 if dtype == torch.float32 else torch.float16
    )
    _pack_bias_kernel[math.prod(tiles), sizes.heads](
        bias.float().contiguous(),
        packed,
        LENGTH=sizes.length,
        SCALE=sizes.scale,
        TRANSPOSED=transposed,
        ROWS=rows,
        COLUMNS=columns,
        WARPS=WARPS,
    )
    return packed


@triton.jit
def _load_rows(base, rows, stride, LENGTH, DIM, DIM_PAD, BLOCK):
    """(BLOCK, DIM_PAD) from rows of DIM values that are `stride` apart; zeros outside."""
    channel = tl.arange(0, DIM_PAD)
    at = base + rows[:, None] * stride + channel[None, :]
    if LENGTH % BLOCK == 0 and DIM == DIM_PAD:
        values = tl.load(at)
    elif LENGTH % BLOCK == 0:
        values = tl.load(at, mask=channel[None, :] < DIM, other=0.0)
    else:
        values = tl.load(at, mask=(channel[None, :] < DIM) & (rows[:, None] < LENGTH), other=0.0)
    return values


@triton.jit
def _store_rows(base, rows, stride, values, LENGTH, DIM, DIM_PAD, BLOCK):
    channel = tl.arange(0, DIM_PAD)
    at = base + rows[:, None] * stride + channel[None, :]
    values = values.to(base.dtype.element_ty)
    if LENGTH % BLOCK == 0 and DIM == DIM_PAD:
        tl.store(at, values)
    elif LENGTH % BLOCK == 0:
        tl.store(at, values, mask=channel[None, :] < DIM)
    else:
        tl.store(at, values, mask=(channel[None, :] < DIM) & (rows[:, None] < LENGTH))


@triton.jit
def _load_vector(base, rows, other, LENGTH, BLOCK):
    if LENGTH % BLOCK == 0:
        values = tl.load(base + rows)
    else:
        values = tl.load(base + rows, mask=rows < LENGTH, other=other)
    return values


@triton.jit
def _load_bias(packed, tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WARPS: tl.constexpr):
    """One (ROWS, COLUMNS) tile of what `_pack_bias_kernel` wrote, float32."""
    HALVES: tl.constexpr = 2 if packed.dtype.element_ty == tl.float16 else 1
    LAYERS: tl.constexpr = ROWS // (16 * WARPS)
    values = tl.load(packed + tile * (ROWS * COLUMNS) + tl.arange(0, ROWS * COLUMNS))
    values = tl.reshape(values, (LAYERS, COLUMNS // (8 * HALVES), WARPS, 8, 4, HALVES, 2, 2))
    values = tl.permute(values, (0, 2, 6, 3, 1, 5, 4, 7))
    return tl.reshape(values, (ROWS, COLUMNS)).to(tl.float32)


@triton.jit
def _pack_bias_kernel(
    bias,
    packed,
    LENGTH: tl.constexpr,
    SCALE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Write a tile of bias / SCALE in the order in which the threads of a kernel with WARPS warps hold an accumulator.

    In an accumulator of the tensor cores a warp has 16 rows, and a thread has two columns of every 8, in two rows that
    are 8 apart. The order, from the outside in: layer of 16 * WARPS rows, 8 columns (16 of two-byte values), warp, row,
    pair of columns, 8 columns within 16, upper or lower row, column. A thread has 16 bytes, all threads side by side,
    and the compiler finds that a tile is already where the product needs it. Any other order would work, more slowly.
    """
    HALVES: tl.constexpr = 2 if packed.dtype.element_ty == tl.float16 else 1
    tile, head = tl.program_id(0), tl.program_id(1)
    across = tl.cdiv(LENGTH, COLUMNS)
    place = tl.arange(0, ROWS * COLUMNS)
    column, rest = place % 2, place // 2
    half_row, rest = rest % 2, rest // 2
    half, rest = rest % HALVES, rest // HALVES
    pair, rest = rest % 4, rest // 4
    row, rest = rest % 8, rest // 8
    warp, rest = rest % WARPS, rest // WARPS
    block, layer = rest % (COLUMNS // (8 * HALVES)), rest // (COLUMNS // (8 * HALVES))
    row += 16 * (layer * WARPS + warp) + 8 * half_row + (tile // across) * ROWS
    column += 8 * (block * HALVES + half) + 2 * pair + (tile % across) * COLUMNS
    at = column * LENGTH + row if TRANSPOSED else row * LENGTH + column
    values = tl.load(bias + head * (LENGTH * LENGTH) + at, mask=(row < LENGTH) & (column < LENGTH), other=0.0)
    start = (head * tl.cdiv(LENGTH, ROWS) * across + tile) * (ROWS * COLUMNS)
    tl.store(packed + start + place, (values / SCALE).to(packed.dtype.element_ty))


@triton.jit
def _regions_of(regions, window, depth, height, width, TOKENS):
    """Where the regions of a window's tokens are."""
    last_x = (window % width == width - 1).to(tl.int32)
    last_y = (window // width % height == height - 1).to(tl.int32)
    last_z = (window // (width * height) % depth == depth - 1).to(tl.int32)
    return regions + (last_z * 4 + last_y * 2 + last_x) * TOKENS


@triton.jit
def _is_mixed(regions, LENGTH):
    """Whether the first LENGTH tokens are of more than one region."""
    token = tl.arange(0, triton.next_power_of_2(LENGTH))
    region = tl.load(regions + tl.minimum(token, LENGTH - 1))
    return tl.max((region != tl.load(regions)).to(tl.int32), 0) > 0


@triton.jit
def _logits(
    left,
    right,
    bias,
    tile,
    regions,
    mixed,
    row,
    column,
    LENGTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WARPS: tl.constexpr,
    PENALTY: tl.constexpr,
):
    """Products of all rows of `left` with all of `right`, plus a tile of the bias, less what parts regions."""
    if bias is not None:
        logit = _load_bias(bias, tile, ROWS, COLUMNS, WARPS)
    else:
        logit = tl.zeros((ROWS, COLUMNS), tl.float32)
    logit = tl.dot(left, tl.trans(right), logit, input_precision="ieee")
    if regions is not None:
        if mixed:
            row_region = _load_vector(regions, row, 0, LENGTH, ROWS)
            column_region = _load_vector(regions, column, 0, LENGTH, COLUMNS)
            logit = tl.where(row_region[:, None] != column_region[None, :], logit - PENALTY, logit)
    return logit


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _forward_kernel(
    qkv,
    bias,
    regions,
    out,
    lse,
    depth,
    height,
    width,
    LENGTH: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SCALE: tl.constexpr,
    SCALE_LOG2E: tl.constexpr,
    PENALTY: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """QUERIES queries of one head of one window, or of one of its frames.

    Programs that run at the same time differ in the window and share their rows of the bias.
    """
    TOKENS: tl.constexpr = LENGTH * PARTS
    CHANNELS: tl.constexpr = HEADS * DIM
    TILES: tl.constexpr = (LENGTH + KEYS - 1) // KEYS
    window, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    block, head = tl.program_id(1), tl.program_id(2)
    query = block * QUERIES + tl.arange(0, QUERIES)
    queries_at, keys_at, results_at, rows_at = _places(window, part, head, LENGTH, PARTS, HEADS, DIM)
    values_at = keys_at + CHANNELS
    q = _load_rows(qkv + queries_at, query, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
    if regions is not None:
        regions = _regions_of(regions, window, depth, height, width, TOKENS)
        mixed = _is_mixed(regions, LENGTH)
    else:
        mixed = False
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    gathered = tl.zeros((QUERIES, DIM_PAD), tl.float32)
    for step in tl.range(TILES):
        key = step * KEYS + tl.arange(0, KEYS)
        k = _load_rows(qkv + keys_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        v = _load_rows(qkv + values_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        tile = (head * tl.cdiv(LENGTH, QUERIES) + block) * TILES + step
        logit = _logits(q, k, bias, tile, regions, mixed, query, key, LENGTH, QUERIES, KEYS, WARPS, PENALTY)
        if LENGTH % KEYS != 0:
            logit = tl.where(key[None, :] < LENGTH, logit, float("-inf"))
        higher = tl.maximum(highest, tl.max(logit, 1))
        weight = tl.exp2(logit * SCALE_LOG2E - (higher * SCALE_LOG2E)[:, None])
        shrink = tl.exp2((highest - higher) * SCALE_LOG2E)
        total = total * shrink + tl.sum(weight, 1)
        gathered = tl.dot(weight.to(v.dtype), v, gathered * shrink[:, None], input_precision="ieee")
        highest = higher
    gathered = gathered / total[:, None]
    _store_rows(out + results_at, query, CHANNELS, gathered, LENGTH, DIM, DIM_PAD, QUERIES)
    tl.store(lse + rows_at + query, highest * SCALE_LOG2E + tl.log2(total), mask=query < LENGTH)


@triton.jit
def _delta_kernel(
    grad,
    out,
    delta,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sum over a head's channels of grad * out: what the softmax's backward takes off."""
    window = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head, channel = tl.arange(0, HEADS_PAD), tl.arange(0, DIM_PAD)
    inside = (token[:, None] < TOKENS) & (head[None, :] < HEADS)
    at = token[:, None, None] * (HEADS * DIM) + head[None, :, None] * DIM + channel[None, None, :]
    at += window * (TOKENS * HEADS * DIM)
    mask = inside[:, :, None] & (channel[None, None, :] < DIM)
    product = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    product *= tl.load(out + at, mask=mask, other=0.0).to(tl.float32)
    at = window * (HEADS * TOKENS) + head[None, :] * TOKENS + token[:, None]
    tl.store(delta + at, tl.sum(product, 2), mask=inside)


@triton.jit
def _places(window, part, head, LENGTH, PARTS, HEADS, DIM):
    """Offsets of the queries and the keys in the packed projection, of the results, and of one value per token."""
    window = window.to(tl.int64)
    start = window * (PARTS * LENGTH * 3 * HEADS * DIM) + head * DIM
    # In mutual attention the queries are those of the other frame.
    queries_at = start + (PARTS - 1 - part) * (LENGTH * 3 * HEADS * DIM)
    keys_at = start + part * (LENGTH * 3 * HEADS * DIM) + HEADS * DIM
    results_at = (window * PARTS + part) * (LENGTH * HEADS * DIM) + head * DIM
    rows_at = (window * HEADS + head) * (PARTS * LENGTH) + part * LENGTH
    return queries_at, keys_at, results_at, rows_at


@triton.jit
def _through_weights(
    logit,
    row_lse,
    grad_weight,
    row_delta,
    key,
    SCALE_LOG2E: tl.constexpr,
    LENGTH: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Weights, and gradients of the logits before scaling; all arguments broadcast."""
    if LENGTH % KEYS != 0:
        logit = tl.where(key < LENGTH, logit, float("-inf"))
    # Of queries outside the window the sum of exponentials is infinite, so they weigh nothing.
    weight = tl.exp2(logit * SCALE_LOG2E - row_lse)
    return weight, weight * (grad_weight - row_delta)


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _fused_kernel(
    qkv,
    bias,
    regions,
    grad,
    lse,
    delta,
    grad_qkv,
    depth,
    height,
    width,
    LENGTH: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SCALE: tl.constexpr,
    SCALE_LOG2E: tl.constexpr,
    PENALTY: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Gradients of q, k and v for one head of one window, or of one of its frames.

    Scores are transposed, keys by queries: then only the product for the gradient of q has an operand that is not yet
    where the tensor cores need it. The loop over queries is unrolled, its gradients and operands stay on the chip.
    """
    TOKENS: tl.constexpr = LENGTH * PARTS
    CHANNELS: tl.constexpr = HEADS * DIM
    QUERY_TILES: tl.constexpr = (LENGTH + QUERIES - 1) // QUERIES
    KEY_TILES: tl.constexpr = (LENGTH + KEYS - 1) // KEYS
    window, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    head = tl.program_id(1)
    queries_at, keys_at, grads_at, rows_at = _places(window, part, head, LENGTH, PARTS, HEADS, DIM)
    values_at = keys_at + CHANNELS
    if regions is not None:
        regions = _regions_of(regions, window, depth, height, width, TOKENS)
        mixed = _is_mixed(regions, LENGTH)
    else:
        mixed = False
    qs, grads, grad_qs = (), (), ()
    for i in tl.static_range(QUERY_TILES):
        query = i * QUERIES + tl.arange(0, QUERIES)
        q = _load_rows(qkv + queries_at, query, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
        qs = qs + (q,)
        grads = grads + (_load_rows(grad + grads_at, query, CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES),)
        grad_qs = grad_qs + (tl.zeros((QUERIES, DIM_PAD), tl.float32),)
    for step in tl.range(KEY_TILES, num_stages=1):
        key = step * KEYS + tl.arange(0, KEYS)
        k = _load_rows(qkv + keys_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        v = _load_rows(qkv + values_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        grad_k = tl.zeros((KEYS, DIM_PAD), tl.float32)
        grad_v = tl.zeros((KEYS, DIM_PAD), tl.float32)
        new_grad_qs = ()
        for i in tl.static_range(QUERY_TILES):
            query = i * QUERIES + tl.arange(0, QUERIES)
            tile = (head * KEY_TILES + step) * QUERY_TILES + i
            logit = _logits(
                k, qs[i], bias, tile, regions, mixed, key, query, LENGTH, KEYS, QUERIES, WARPS, PENALTY
            )
            grad_weight = tl.dot(v, tl.trans(grads[i]), input_precision="ieee")
            row_lse = _load_vector(lse + rows_at, query, float("inf"), LENGTH, QUERIES)
            row_delta = _load_vector(delta + rows_at, query, 0.0, LENGTH, QUERIES)
            weight, grad_logit = _through_weights(
                logit,
                row_lse[None, :],
                grad_weight,
                row_delta[None, :],
                key[:, None],
                SCALE_LOG2E,
                LENGTH,
                KEYS,
            )
            grad_logit = grad_logit.to(k.dtype)
            grad_v = tl.dot(weight.to(v.dtype), grads[i], grad_v, input_precision="ieee")
            grad_k = tl.dot(grad_logit, qs[i], grad_k, input_precision="ieee")
            grad_q = tl.dot(tl.trans(grad_logit), k, grad_qs[i], input_precision="ieee")
            new_grad_qs = new_grad_qs + (grad_q,)
        grad_qs = new_grad_qs
        _store_rows(grad_qkv + keys_at, key, 3 * CHANNELS, grad_k * SCALE, LENGTH, DIM, DIM_PAD, KEYS)
        _store_rows(grad_qkv + values_at, key, 3 * CHANNELS, grad_v, LENGTH, DIM, DIM_PAD, KEYS)
    for i in tl.static_range(QUERY_TILES):
        query = i * QUERIES + tl.arange(0, QUERIES)
        _store_rows(
            grad_qkv + queries_at, query, 3 * CHANNELS, grad_qs[i] * SCALE, LENGTH, DIM, DIM_PAD, QUERIES
        )


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _keys_kernel(
    qkv,
    bias,
    regions,
    grad,
    lse,
    delta,
    grad_qkv,
    depth,
    height,
    width,
    LENGTH: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SCALE: tl.constexpr,
    SCALE_LOG2E: tl.constexpr,
    PENALTY: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Gradients of KEYS keys and their values, for one head of one window, or of one of its frames."""
    TOKENS: tl.constexpr = LENGTH * PARTS
    CHANNELS: tl.constexpr = HEADS * DIM
    QUERY_TILES: tl.constexpr = (LENGTH + QUERIES - 1) // QUERIES
    KEY_TILES: tl.constexpr = (LENGTH + KEYS - 1) // KEYS
    window, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    block, head = tl.program_id(1), tl.program_id(2)
    queries_at, keys_at, grads_at, rows_at = _places(window, part, head, LENGTH, PARTS, HEADS, DIM)
    values_at = keys_at + CHANNELS
    if regions is not None:
        regions = _regions_of(regions, window, depth, height, width, TOKENS)
        mixed = _is_mixed(regions, LENGTH)
    else:
        mixed = False
    key = block * KEYS + tl.arange(0, KEYS)
    k = _load_rows(qkv + keys_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
    v = _load_rows(qkv + values_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
    grad_k = tl.zeros((KEYS, DIM_PAD), tl.float32)
    grad_v = tl.zeros((KEYS, DIM_PAD), tl.float32)
    for step in tl.range(QUERY_TILES):
        query = step * QUERIES + tl.arange(0, QUERIES)
        q = _load_rows(qkv + queries_at, query, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
        grad_out = _load_rows(grad + grads_at, query, CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
        tile = (head * KEY_TILES + block) * QUERY_TILES + step
        logit = _logits(k, q, bias, tile, regions, mixed, key, query, LENGTH, KEYS, QUERIES, WARPS, PENALTY)
        grad_weight = tl.dot(v, tl.trans(grad_out), input_precision="ieee")
        row_lse = _load_vector(lse + rows_at, query, float("inf"), LENGTH, QUERIES)
        row_delta = _load_vector(delta + rows_at, query, 0.0, LENGTH, QUERIES)
        weight, grad_logit = _through_weights(
            logit, row_lse[None, :], grad_weight, row_delta[None, :], key[:, None], SCALE_LOG2E, LENGTH, KEYS
        )
        grad_v = tl.dot(weight.to(v.dtype), grad_out, grad_v, input_precision="ieee")
        grad_k = tl.dot(grad_logit.to(k.dtype), q, grad_k, input_precision="ieee")
    _store_rows(grad_qkv + keys_at, key, 3 * CHANNELS, grad_k * SCALE, LENGTH, DIM, DIM_PAD, KEYS)
    _store_rows(grad_qkv + values_at, key, 3 * CHANNELS, grad_v, LENGTH, DIM, DIM_PAD, KEYS)


@triton.jit(do_not_specialize=["depth", "height", "width"])
def _queries_kernel(
    qkv,
    bias,
    regions,
    grad,
    lse,
    delta,
    grad_qkv,
    depth,
    height,
    width,
    LENGTH: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SCALE: tl.constexpr,
    SCALE_LOG2E: tl.constexpr,
    PENALTY: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Gradients of QUERIES queries, for one head of one window, or of one of its frames."""
    TOKENS: tl.constexpr = LENGTH * PARTS
    CHANNELS: tl.constexpr = HEADS * DIM
    QUERY_TILES: tl.constexpr = (LENGTH + QUERIES - 1) // QUERIES
    KEY_TILES: tl.constexpr = (LENGTH + KEYS - 1) // KEYS
    window, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    block, head = tl.program_id(1), tl.program_id(2)
    queries_at, keys_at, grads_at, rows_at = _places(window, part, head, LENGTH, PARTS, HEADS, DIM)
    values_at = keys_at + CHANNELS
    if regions is not None:
        regions = _regions_of(regions, window, depth, height, width, TOKENS)
        mixed = _is_mixed(regions, LENGTH)
    else:
        mixed = False
    query = block * QUERIES + tl.arange(0, QUERIES)
    q = _load_rows(qkv + queries_at, query, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
    grad_out = _load_rows(grad + grads_at, query, CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
    row_lse = _load_vector(lse + rows_at, query, float("inf"), LENGTH, QUERIES)
    row_delta = _load_vector(delta + rows_at, query, 0.0, LENGTH, QUERIES)
    grad_q = tl.zeros((QUERIES, DIM_PAD), tl.float32)
    for step in tl.range(KEY_TILES):
        key = step * KEYS + tl.arange(0, KEYS)
        k = _load_rows(qkv + keys_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        v = _load_rows(qkv + values_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        tile = (head * QUERY_TILES + block) * KEY_TILES + step
        logit = _logits(q, k, bias, tile, regions, mixed, query, key, LENGTH, QUERIES, KEYS, WARPS, PENALTY)
        grad_weight = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        _, grad_logit = _through_weights(
            logit, row_lse[:, None], grad_weight, row_delta[:, None], key[None, :], SCALE_LOG2E, LENGTH, KEYS
        )
        grad_q = tl.dot(grad_logit.to(k.dtype), k, grad_q, input_precision="ieee")
    _store_rows(grad_qkv + queries_at, query, 3 * CHANNELS, grad_q * SCALE, LENGTH, DIM, DIM_PAD, QUERIES)


@triton.jit(do_not_specialize=["depth", "height", "width", "windows"])
def _bias_kernel(
    qkv,
    bias,
    regions,
    grad,
    lse,
    delta,
    partial,
    depth,
    height,
    width,
    windows,
    LENGTH: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SCALE: tl.constexpr,
    SCALE_LOG2E: tl.constexpr,
    PENALTY: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """A tile of the gradient of the bias of one head, summed over a share of the windows.

    Programs that run at the same time differ in the tile and the head, and so read the same windows.
    """
    tl.static_assert(PARTS == 1)
    CHANNELS: tl.constexpr = HEADS * DIM
    KEY_TILES: tl.constexpr = (LENGTH + KEYS - 1) // KEYS
    tile, head = tl.program_id(0), tl.program_id(1)
    chunk, chunks = tl.program_id(2).to(tl.int64), tl.num_programs(2)
    query = tile // KEY_TILES * QUERIES + tl.arange(0, QUERIES)
    key = tile % KEY_TILES * KEYS + tl.arange(0, KEYS)
    start_logit = _load_bias(bias, head * tl.num_programs(0) + tile, QUERIES, KEYS, WARPS)
    grad_bias = tl.zeros((QUERIES, KEYS), tl.float32)
    first, end = (chunk * windows // chunks).to(tl.int32), ((chunk + 1) * windows // chunks).to(tl.int32)
    for window in tl.range(first, end):
        queries_at, keys_at, grads_at, rows_at = _places(
            tl.cast(window, tl.int32), 0, head, LENGTH, PARTS, HEADS, DIM
        )
        q = _load_rows(qkv + queries_at, query, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
        k = _load_rows(qkv + keys_at, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        v = _load_rows(qkv + keys_at + CHANNELS, key, 3 * CHANNELS, LENGTH, DIM, DIM_PAD, KEYS)
        grad_out = _load_rows(grad + grads_at, query, CHANNELS, LENGTH, DIM, DIM_PAD, QUERIES)
        row_lse = _load_vector(lse + rows_at, query, float("inf"), LENGTH, QUERIES)
        row_delta = _load_vector(delta + rows_at, query, 0.0, LENGTH, QUERIES)
        logit = tl.dot(q, tl.trans(k), start_logit, input_precision="ieee")
        if regions is not None:
            of_window = _regions_of(regions, window, depth, height, width, LENGTH)
            query_region = _load_vector(of_window, query, 0, LENGTH, QUERIES)
            key_region = _load_vector(of_window, key, 0, LENGTH, KEYS)
            logit = tl.where(query_region[:, None] != key_region[None, :], logit - PENALTY, logit)
        grad_weight = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        _, grad_logit = _through_weights(
            logit, row_lse[:, None], grad_weight, row_delta[:, None], key[None, :], SCALE_LOG2E, LENGTH, KEYS
        )
        grad_bias += grad_logit
    at = (chunk * HEADS + head) * (LENGTH * LENGTH) + query[:, None] * LENGTH + key[None, :]
    tl.store(partial + at, grad_bias, mask=(query[:, None] < LENGTH) & (key[None, :] < LENGTH))
