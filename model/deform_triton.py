"""Triton kernels of the modulated deformable convolution, forward and backward, for CUDA.

One kernel samples the features into columns, cuBLAS multiplies them with the weight; neither columns nor offsets are
kept for backward. There one kernel turns the gradient of the columns into all others, and on the way makes the columns
again, in the same memory, for the gradient of the weight.

The channels of an offset group are sampled at the same places, so the features are first laid out with them innermost,
as (N * groups, slices, H * W, lanes): a group's channels in slices of `lanes`, a power of two, filled up with zeros.
A corner of 8 half-precision channels is then one read of 16 bytes, and 4 channels of its float32 gradient one addition.

Positions, weights and sums are float32; features, columns and the columns' gradient have the precision of `x`.
"""

# ruff: noqa: N803 (constants of the kernels are in capitals, as in Triton's own)

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of the columns made at once, unless one frame has more: 128 MiB in half precision.
_COLUMNS = 2**26
_VECTOR_BYTES = 16
_BLOCK = 128
_WARPS = 4


def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    motion: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    *,
    limit: float | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """`deform_conv2d`, or with a `limit` `flow_guided_deform_conv`, as (N, O, oh, ow) in the precision of `x`.

    Under autocast that is autocast's precision, as for any convolution. The gradient of `x` is summed by atomic
    additions: its last digits differ from run to run, like those of PyTorch's own grid sampling on CUDA.

    Args:
        x: (N, C, H, W).
        offset: (N, OG * taps * 2, oh, ow) pixels; with a limit the residual (N, OG * taps * 3, oh, ow) with the mask.
        mask: (N, OG * taps, oh, ow), or None.
        motion: (N, neighbours, 2, oh, ow) flows added to the offsets, x first, or None.
        weight: (O, C / G, kh, kw).
        bias: (O,), or None.
        limit: largest residual offset in pixels, or None where `offset` is in pixels already.
        stride: (vertical, horizontal) pixels; so are padding and dilation.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _forward(x, offset, mask, motion, weight, bias, limit, stride, padding, dilation)


@torch.library.custom_op(
    "spk::deform_conv",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor offset, Tensor? mask, Tensor? motion, Tensor weight, Tensor? bias, float? limit,"
        " int[] stride, int[] padding, int[] dilation) -> Tensor"
    ),
)
def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    motion: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    limit: float | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    sampler = _Sampler(x, offset, mask, motion, weight.shape[-2:], limit, stride, padding, dilation)
    out = x.new_empty(len(x), len(weight), *offset.shape[-2:])
    kernels = _kernels(weight.to(x.dtype), x.shape[1])
    groups = len(kernels)
    bias = None if bias is None else bias.to(x.dtype).view(groups, -1, 1)
    with torch.cuda.device_of(x), torch.autocast(x.device.type, enabled=False):
        for frames in sampler.chunks():
            columns = _per_group(sampler.columns(frames), groups)
            rows, copies = _per_group(out[frames], groups), len(columns) // groups
            if bias is None:
                torch.bmm(kernels.repeat(copies, 1, 1), columns, out=rows)
            else:
                torch.baddbmm(bias.repeat(copies, 1, 1), kernels.repeat(copies, 1, 1), columns, out=rows)
    return out


@_forward.register_fake
def _forward_fake(x: Tensor, offset: Tensor, mask: None, motion: None, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty(len(x), len(weight), *offset.shape[-2:])


@torch.library.custom_op(
    "spk::deform_conv_backward",
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor x, Tensor offset, Tensor? mask, Tensor? motion, Tensor weight, float? limit,"
        " int[] stride, int[] padding, int[] dilation, bool for_motion, bool for_weight)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    motion: Tensor | None,
    weight: Tensor,
    limit: float | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    for_motion: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask, motion and weight; empty ones of what is not there or not wanted."""
    sampler = _Sampler(x, offset, mask, motion, weight.shape[-2:], limit, stride, padding, dilation)
    grads = _empty_grads(x, offset, mask, motion, weight, for_motion, for_weight)
    kernels = _kernels(weight.to(x.dtype), x.shape[1])
    groups = len(kernels)
    transposed = kernels.transpose(1, 2).contiguous()
    grad = grad.contiguous()
    grad_kernels = torch.zeros_like(kernels, dtype=torch.float32)
    with torch.cuda.device_of(x), torch.autocast(x.device.type, enabled=False):
        for frames in sampler.chunks():
            rows = _per_group(grad[frames], groups)
            columns = torch.bmm(transposed.repeat(len(rows) // groups, 1, 1), rows)
            sampler.gradients(frames, columns, *grads[:4], for_weight)
            if for_weight:
                product = torch.bmm(rows, columns.transpose(1, 2))
                grad_kernels += product.unflatten(0, (-1, groups)).sum(0, dtype=torch.float32)
    if for_weight:
        grads[4].copy_(grad_kernels.view_as(weight))
    return grads


@_backward.register_fake
def _backward_fake(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    motion: Tensor | None,
    weight: Tensor,
    limit: float | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    for_motion: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_grads(x, offset, mask, motion, weight, for_motion, for_weight)


def _empty_grads(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    motion: Tensor | None,
    weight: Tensor,
    for_motion: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(tensor: Tensor | None, wanted: bool = True) -> Tensor:
        return x.new_empty(0) if tensor is None or not wanted else tensor.new_empty(tensor.shape)

    return like(x), like(offset), like(mask), like(motion, for_motion), like(weight, for_weight)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    x, offset, mask, motion, weight, _, *ctx.settings = inputs
    ctx.save_for_backward(x, offset, mask, motion, weight)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:6]
    grads = torch.ops.spk.deform_conv_backward(grad, *saved, *ctx.settings, wanted[3], wanted[4])
    grads = [value if want else None for value, want in zip(grads, wanted, strict=False)]
    grad_bias = grad.sum((0, 2, 3), dtype=torch.float32) if wanted[5] else None
    return *grads, grad_bias, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _kernels(weight: Tensor, channels: int) -> Tensor:
    """The weight as one matrix per weight group, (G, O / G, C / G * taps)."""
    groups = channels // weight.shape[1]
    return weight.reshape(groups, len(weight) // groups, -1)


def _per_group(x: Tensor, groups: int) -> Tensor:
    """(n, G * rows, ...) as (n * G, rows, pixels)."""
    return x.view(len(x) * groups, -1, x.shape[-1] if x.ndim == 3 else x.shape[-2] * x.shape[-1])


class _Sampler:
    """The launches of the kernels: between the features and their columns, a few frames at a time.

    The columns of n frames are (n, C * taps, oh * ow), rows ordered [channel][kernel row][kernel column].
    """

    def __init__(
        self,
        x: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        motion: Tensor | None,
        kernel: Sequence[int],
        limit: float | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        self.x = x.contiguous()
        self.squash = limit is not None
        self.offset, self.mask = self._parts(offset.contiguous(), None if mask is None else mask.contiguous())
        self.motion = None if motion is None else motion.contiguous()
        self.limit = 1.0 if limit is None else limit
        self.taps = kernel[0] * kernel[1]
        self.pixels = offset.shape[-2] * offset.shape[-1]
        self.groups = self.offset.shape[1] // (2 * self.taps)
        self.channels = x.shape[1] // self.groups
        self.lanes = min(triton.next_power_of_2(self.channels), _VECTOR_BYTES // x.itemsize)
        self.slices = triton.cdiv(self.channels, self.lanes)
        self.options = {
            "KERNEL_W": kernel[1],
            "TAPS": self.taps,
            "STRIDE_Y": stride[0],
            "STRIDE_X": stride[1],
            "PAD_Y": padding[0],
            "PAD_X": padding[1],
            "DILATION_Y": dilation[0],
            "DILATION_X": dilation[1],
            "GROUPS": self.groups,
            "NEIGHBOURS": 0 if motion is None else motion.shape[1],
            "CHANNELS": self.channels,
            "LANES": self.lanes,
            "SQUASH": self.squash,
            "HAS_MASK": self.mask is not None,
            "BLOCK": _BLOCK,
            "num_warps": _WARPS,
        }

    def chunks(self) -> Iterator[slice]:
        """The frames to take together."""
        frames = len(self.x)
        count = max(_COLUMNS // max(self.x.shape[1] * self.taps * self.pixels, 1), 1)
        return (slice(start, min(start + count, frames)) for start in range(0, frames, count))

    def columns(self, frames: slice) -> Tensor:
        """Sample."""
        count = frames.stop - frames.start
        columns = self.x.new_empty(count, self.x.shape[1] * self.taps, self.pixels)
        blocks = triton.cdiv(self.pixels, _BLOCK)
        _sample[(blocks * count * self.groups,)](
            self._pack(frames), *self._places(frames), columns, *self._sizes(blocks), **self.options
        )
        return columns

    def gradients(
        self,
        frames: slice,
        columns: Tensor,
        grad_x: Tensor,
        grad_offset: Tensor,
        grad_mask: Tensor,
        grad_motion: Tensor,
        restore: bool,
    ) -> None:
        """Fill in these frames of the gradients, and with `restore` put the columns in place of their gradient."""
        count = frames.stop - frames.start
        packed = self._pack(frames)
        rows, slices, in_pixels, lanes = packed.shape
        quad = min(lanes, _VECTOR_BYTES // 4)
        sums = packed.new_zeros(rows, slices * lanes // quad, in_pixels, quad, dtype=torch.float32)
        flow_sums = sums.new_empty(count, self.groups, 2, self.pixels) if grad_motion.numel() else None
        grad_offset, grad_mask = self._parts(grad_offset, None if self.mask is None else grad_mask)
        blocks = triton.cdiv(self.pixels, _BLOCK)
        _scatter[(blocks * count * self.groups,)](
            *(packed, *self._places(frames), columns, sums),
            *(grad_offset[frames], None if grad_mask is None else grad_mask[frames], flow_sums),
            *self._sizes(blocks),
            **self.options,
            QUAD=quad,
            RESTORE=restore,
        )
        self._unpack(sums, grad_x[frames])
        if flow_sums is not None:
            by_neighbour = flow_sums.view(count, grad_motion.shape[1], -1, 2, self.pixels).sum(2)
            grad_motion[frames] = by_neighbour.flip(2).view_as(grad_motion[frames])

    def _parts(self, offset: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Offsets and masks; a residual has both, one after the other."""
        if not self.squash:
            return offset, mask
        third = offset.shape[1] // 3
        return offset[:, : 2 * third], offset[:, 2 * third :]

    def _places(self, frames: slice) -> tuple[Tensor | None, ...]:
        return tuple(None if x is None else x[frames] for x in (self.offset, self.mask, self.motion))

    def _sizes(self, blocks: int) -> tuple[int | float, ...]:
        mask_stride = 0 if self.mask is None else self.mask.stride(0)
        return (
            *(self.offset.stride(0), mask_stride, *self.x.shape[-2:], self.pixels),
            *(self.offset.shape[-1], blocks, self.limit),
        )

    def _pack(self, frames: slice) -> Tensor:
        x = self.x[frames]
        pixels = x.shape[-2] * x.shape[-1]
        packed = x.new_empty(len(x) * self.groups, self.slices, pixels, self.lanes)
        self._move(x, packed, pack=True)
        return packed

    def _unpack(self, packed: Tensor, x: Tensor) -> None:
        self._move(x, packed, pack=False)

    def _move(self, x: Tensor, packed: Tensor, *, pack: bool) -> None:
        rows, slices, pixels, lanes = packed.shape
        blocks = triton.cdiv(pixels, _BLOCK)
        grid = (blocks * rows * slices,)
        sizes = {"CHANNELS": self.channels, "SLICES": slices, "LANES": lanes, "BLOCK": _BLOCK}
        _lay_out[grid](x, packed, pixels, blocks, **sizes, PACK=pack, num_warps=_WARPS)


# A thread has all channels of a pixel. Were rows of pixels known to be aligned, Triton would read and write columns in
# vectors of pixels, and carry every tile through shared memory between the two orders.
_jit = triton.jit(do_not_specialize_on_alignment=["pixels"])


@_jit
def _lay_out(
    x,
    packed,
    pixels,
    blocks,
    CHANNELS: tl.constexpr,
    SLICES: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    PACK: tl.constexpr,
):
    """Between features (rows, channels, pixels) and their layout for sampling (rows, slices, pixels, lanes)."""
    program = tl.program_id(0)
    piece = program // blocks
    row = (piece // SLICES).to(tl.int64)
    channel = (piece % SLICES) * LANES + tl.arange(0, LANES)
    at = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = (at < pixels)[:, None]
    kept = inside & (channel < CHANNELS)[None, :]
    planes = x + ((row * CHANNELS + channel) * pixels)[None, :] + at[:, None]
    lanes = packed + piece.to(tl.int64) * pixels * LANES + at[:, None] * LANES + tl.arange(0, LANES)[None, :]
    if PACK:
        tl.store(lanes, tl.load(planes, mask=kept, other=0.0), mask=inside)
    else:
        tl.store(planes, tl.load(lanes, mask=inside, other=0.0), mask=kept)


@triton.jit
def _flow(motion, frame, group, at, inside, pixels, GROUPS: tl.constexpr, NEIGHBOURS: tl.constexpr):
    """The (y, x) flow of a group's neighbour at these pixels, zero without flows."""
    flow_y = tl.zeros(at.shape, tl.float32)
    flow_x = tl.zeros(at.shape, tl.float32)
    if NEIGHBOURS > 0:
        plane = motion + (frame * NEIGHBOURS + group // (GROUPS // NEIGHBOURS)) * 2 * pixels
        flow_x = tl.load(plane + at, mask=inside, other=0.0).to(tl.float32)
        flow_y = tl.load(plane + pixels + at, mask=inside, other=0.0).to(tl.float32)
    return flow_y, flow_x


@triton.jit
def _tap(offset, mask, tap, at, inside, pixels, SQUASH: tl.constexpr, HAS_MASK: tl.constexpr):
    """A tap's (y, x) offset over the limit, and its mask."""
    move_y = tl.load(offset + 2 * tap * pixels + at, mask=inside, other=0.0).to(tl.float32)
    move_x = tl.load(offset + (2 * tap + 1) * pixels + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.full(at.shape, 1.0, tl.float32)
    if HAS_MASK:
        factor = tl.load(mask + tap * pixels + at, mask=inside, other=0.0).to(tl.float32)
    if SQUASH:
        move_y = 2 * tl.sigmoid(2 * move_y) - 1  # tanh
        move_x = 2 * tl.sigmoid(2 * move_x) - 1
        factor = tl.sigmoid(factor)
    return move_y, move_x, factor


@triton.jit
def _corners(y, x, inside, height, width):
    """The pixel up and left of each position, how far the position is from it, and which corners lie in the image."""
    row = tl.floor(y)
    column = tl.floor(x)
    # Compared as floats: far outside, and of no number, there is no integer.
    above = inside & (row >= 0) & (row < height)
    below = inside & (row >= -1) & (row < height - 1)
    left = (column >= 0) & (column < width)
    right = (column >= -1) & (column < width - 1)
    index = row.to(tl.int32) * width + column.to(tl.int32)
    return index, y - row, x - column, above & left, above & right, below & left, below & right


@_jit
def _sample(
    packed,
    offset,
    mask,
    motion,
    columns,
    offset_stride,
    mask_stride,
    height,
    width,
    pixels,
    out_width,
    blocks,
    limit,
    KERNEL_W: tl.constexpr,
    TAPS: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr,
    DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr,
    GROUPS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    SQUASH: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Columns of one offset group at one block of a frame's output pixels."""
    program = tl.program_id(0)
    piece = program // blocks
    frame_group = piece.to(tl.int64)
    frame = (piece // GROUPS).to(tl.int64)
    group = (piece % GROUPS).to(tl.int64)
    at = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = at < pixels
    lane = tl.arange(0, LANES)
    in_pixels = height * width

    offset += frame * offset_stride + group * 2 * TAPS * pixels
    if HAS_MASK:
        mask += frame * mask_stride + group * TAPS * pixels
    flow_y, flow_x = _flow(motion, frame, group, at, inside, pixels, GROUPS, NEIGHBOURS)
    start_y = (at // out_width) * STRIDE_Y - PAD_Y + flow_y
    start_x = (at % out_width) * STRIDE_X - PAD_X + flow_x

    for tap in range(TAPS):
        move_y, move_x, factor = _tap(offset, mask, tap, at, inside, pixels, SQUASH, HAS_MASK)
        y = start_y + (tap // KERNEL_W) * DILATION_Y + limit * move_y
        x = start_x + (tap % KERNEL_W) * DILATION_X + limit * move_x
        index, down, along, in00, in01, in10, in11 = _corners(y, x, inside, height, width)
        factor00 = (factor * (1 - down) * (1 - along))[:, None]
        factor01 = (factor * (1 - down) * along)[:, None]
        factor10 = (factor * down * (1 - along))[:, None]
        factor11 = (factor * down * along)[:, None]
        for first in tl.static_range(0, CHANNELS, LANES):
            plane = packed + (frame_group * tl.cdiv(CHANNELS, LANES) + first // LANES) * in_pixels * LANES
            corner = plane + index[:, None] * LANES + lane[None, :]
            below = corner + width * LANES
            value = factor00 * tl.load(corner, mask=in00[:, None], other=0.0).to(tl.float32)
            value += factor01 * tl.load(corner + LANES, mask=in01[:, None], other=0.0).to(tl.float32)
            value += factor10 * tl.load(below, mask=in10[:, None], other=0.0).to(tl.float32)
            value += factor11 * tl.load(below + LANES, mask=in11[:, None], other=0.0).to(tl.float32)
            row = (frame_group * CHANNELS + first + lane) * TAPS + tap
            out = columns + (row * pixels)[None, :] + at[:, None]
            tl.store(out, value, mask=inside[:, None] & (first + lane < CHANNELS)[None, :])


@triton.jit
def _add(
    corner, grad, factor00, factor01, factor10, factor11, in00, in01, in10, in11, width, QUAD: tl.constexpr
):
    """Add the gradient to the four corners of each position, as far as they lie in the image."""
    below = corner + width * QUAD
    tl.atomic_add(corner, factor00 * grad, mask=in00[:, None], sem="relaxed")
    tl.atomic_add(corner + QUAD, factor01 * grad, mask=in01[:, None], sem="relaxed")
    tl.atomic_add(below, factor10 * grad, mask=in10[:, None], sem="relaxed")
    tl.atomic_add(below + QUAD, factor11 * grad, mask=in11[:, None], sem="relaxed")


@_jit
def _scatter(
    packed,
    offset,
    mask,
    motion,
    columns,
    grad_packed,
    grad_offset,
    grad_mask,
    grad_flow,
    offset_stride,
    mask_stride,
    height,
    width,
    pixels,
    out_width,
    blocks,
    limit,
    KERNEL_W: tl.constexpr,
    TAPS: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr,
    DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr,
    GROUPS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    SQUASH: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
    QUAD: tl.constexpr,
    RESTORE: tl.constexpr,
):
    """From the gradient of the columns, block by block as in `_sample`, the gradients of all that made them.

    Args:
        columns: holds the gradient, and with RESTORE the columns afterwards.
        grad_packed: zeros, float32, laid out as `packed` but in slices of QUAD; added to.
        grad_offset: strides of `offset`.
        grad_mask: strides of `mask`.
        grad_flow: (n, groups, 2, pixels) float32 sums over the taps, y first; may be None.
    """
    program = tl.program_id(0)
    piece = program // blocks
    frame_group = piece.to(tl.int64)
    frame = (piece // GROUPS).to(tl.int64)
    group = (piece % GROUPS).to(tl.int64)
    at = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = at < pixels
    lane = tl.arange(0, LANES)
    in_pixels = height * width

    offset += frame * offset_stride + group * 2 * TAPS * pixels
    grad_offset += frame * offset_stride + group * 2 * TAPS * pixels
    if HAS_MASK:
        mask += frame * mask_stride + group * TAPS * pixels
        grad_mask += frame * mask_stride + group * TAPS * pixels
    flow_y, flow_x = _flow(motion, frame, group, at, inside, pixels, GROUPS, NEIGHBOURS)
    start_y = (at // out_width) * STRIDE_Y - PAD_Y + flow_y
    start_x = (at % out_width) * STRIDE_X - PAD_X + flow_x
    sum_y = tl.zeros((BLOCK,), tl.float32)
    sum_x = tl.zeros((BLOCK,), tl.float32)

    for tap in range(TAPS):
        move_y, move_x, factor = _tap(offset, mask, tap, at, inside, pixels, SQUASH, HAS_MASK)
        y = start_y + (tap // KERNEL_W) * DILATION_Y + limit * move_y
        x = start_x + (tap % KERNEL_W) * DILATION_X + limit * move_x
        index, down, along, in00, in01, in10, in11 = _corners(y, x, inside, height, width)
        factor00 = (factor * (1 - down) * (1 - along))[:, None]
        factor01 = (factor * (1 - down) * along)[:, None]
        factor10 = (factor * down * (1 - along))[:, None]
        factor11 = (factor * down * along)[:, None]
        # What the gradient says about each corner, summed over the channels.
        dot00 = tl.zeros((BLOCK,), tl.float32)
        dot01 = tl.zeros((BLOCK,), tl.float32)
        dot10 = tl.zeros((BLOCK,), tl.float32)
        dot11 = tl.zeros((BLOCK,), tl.float32)
        for first in tl.static_range(0, CHANNELS, LANES):
            slice_start = (frame_group * tl.cdiv(CHANNELS, LANES) + first // LANES) * in_pixels * LANES
            corner = index[:, None] * LANES + lane[None, :]
            below = corner + width * LANES
            plane = packed + slice_start
            value00 = tl.load(plane + corner, mask=in00[:, None], other=0.0).to(tl.float32)
            value01 = tl.load(plane + corner + LANES, mask=in01[:, None], other=0.0).to(tl.float32)
            value10 = tl.load(plane + below, mask=in10[:, None], other=0.0).to(tl.float32)
            value11 = tl.load(plane + below + LANES, mask=in11[:, None], other=0.0).to(tl.float32)

            row = (frame_group * CHANNELS + first + lane) * TAPS + tap
            column = columns + (row * pixels)[None, :] + at[:, None]
            kept = inside[:, None] & (first + lane < CHANNELS)[None, :]
            grad = tl.load(column, mask=kept, other=0.0).to(tl.float32)
            if RESTORE:
                value = factor00 * value00 + factor01 * value01 + factor10 * value10 + factor11 * value11
                tl.store(column, value, mask=kept)

            dot00 += tl.sum(grad * value00, axis=1)
            dot01 += tl.sum(grad * value01, axis=1)
            dot10 += tl.sum(grad * value10, axis=1)
            dot11 += tl.sum(grad * value11, axis=1)
            quads = frame_group * (tl.cdiv(CHANNELS, LANES) * LANES // QUAD) + first // QUAD
            corner = (
                grad_packed + quads * in_pixels * QUAD + (index[:, None] * QUAD + tl.arange(0, QUAD)[None, :])
            )
            if LANES == QUAD:
                _add(
                    corner, grad, factor00, factor01, factor10, factor11, in00, in01, in10, in11, width, QUAD
                )
            else:
                low, high = tl.split(tl.permute(tl.reshape(grad, (BLOCK, 2, QUAD)), (0, 2, 1)))
                _add(corner, low, factor00, factor01, factor10, factor11, in00, in01, in10, in11, width, QUAD)
                corner += in_pixels * QUAD
                _add(
                    corner, high, factor00, factor01, factor10, factor11, in00, in01, in10, in11, width, QUAD
                )

        grad_y = factor * ((1 - along) * (dot10 - dot00) + along * (dot11 - dot01))
        grad_x = factor * ((1 - down) * (dot01 - dot00) + down * (dot11 - dot10))
        sum_y += grad_y
        sum_x += grad_x
        if SQUASH:
            grad_y *= limit * (1 - move_y * move_y)
            grad_x *= limit * (1 - move_x * move_x)
        tl.store(grad_offset + 2 * tap * pixels + at, grad_y, mask=inside)
        tl.store(grad_offset + (2 * tap + 1) * pixels + at, grad_x, mask=inside)
        if HAS_MASK:
            above = (1 - along) * dot00 + along * dot01
            grad_factor = (1 - down) * above + down * ((1 - along) * dot10 + along * dot11)
            if SQUASH:
                grad_factor *= factor * (1 - factor)
            tl.store(grad_mask + tap * pixels + at, grad_factor, mask=inside)

    if grad_flow is not None:
        flow = grad_flow + frame_group * 2 * pixels + at
        tl.store(flow, sum_y, mask=inside)
        tl.store(flow + pixels, sum_x, mask=inside)
