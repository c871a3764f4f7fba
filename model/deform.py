"""Modulated deformable convolution (DCNv2), in plain PyTorch and, on CUDA, by the kernels of `deform_triton`."""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from model.flow import at_least_float32, full_precision

Pair = int | tuple[int, int]

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def has_kernels(*tensors: Tensor | None) -> bool:
    """Whether a convolution of these tensors runs in the Triton kernels: on CUDA, float32 or narrower, with triton."""
    given = [x for x in tensors if x is not None]
    return _HAS_TRITON and all(x.device.type == "cuda" and x.dtype in _KERNEL_DTYPES for x in given)


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Tensor:
    """Convolve with taps that sample the input bilinearly at learned offsets, as (B, O, oh, ow).

    Output position (i, j), tap (a, b) samples at (i * stride - padding + a * dilation + dy, same for j and dx);
    corners outside the image count as 0. Formula: Zhu et al., "Deformable ConvNets v2" (CVPR 2019), equation 1.
    Groups are inferred: weight groups G = C / weight.shape[1], offset groups OG = offset.shape[1] / (2 kh kw);
    input channel c follows offset group c // (C / OG). Positions are float32 or wider, whatever autocast says. So are
    the features sampled and the result in plain PyTorch; the kernels keep the features' or autocast's precision there.

    Args:
        x: (B, C, H, W), floating.
        offset: (B, OG * kh * kw * 2, oh, ow) pixels, channels ordered [group][kernel row][kernel column][y, x].
        weight: (O, C / G, kh, kw).
        bias: (O,).
        mask: (B, OG * kh * kw, oh, ow), factors, channels ordered [group][kernel row][kernel column].
        stride: pixels, one number or (vertical, horizontal); so are padding and dilation.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    groups, offset_groups, out_size = _check_shapes(x, offset, weight, mask, stride, padding, dilation)
    if has_kernels(x, offset, weight, bias, mask):
        from model import deform_triton

        geometry = {"stride": stride, "padding": padding, "dilation": dilation}
        return deform_triton.deform_conv(x, offset, mask, None, weight, bias, limit=None, **geometry)
    batch, channels = x.shape[:2]
    kernel = weight.shape[-2:]
    taps = kernel[0] * kernel[1]

    x = at_least_float32(x)
    grid = _sampling_grid(offset.to(x.dtype), x.shape[-2:], kernel, stride, padding, dilation)
    columns = F.grid_sample(
        x.reshape(batch * offset_groups, channels // offset_groups, *x.shape[-2:]),
        grid.view(batch * offset_groups, taps * out_size[0], out_size[1], 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).view(batch, offset_groups, channels // offset_groups, taps, -1)
    if mask is not None:
        columns = columns * mask.to(x.dtype).reshape(batch, offset_groups, 1, taps, -1)
    columns = columns.view(batch, groups, weight.shape[1] * taps, -1)
    out = torch.matmul(weight.view(groups, weight.shape[0] // groups, -1), columns)
    out = out.reshape(batch, weight.shape[0], *out_size)
    return out if bias is None else out + bias.view(-1, 1, 1).to(out.dtype)


def flow_guided_deform_conv(
    x: Tensor, residual: Tensor, motion: Tensor | None, weight: Tensor, bias: Tensor | None, limit: float
) -> Tensor:
    """Deformable convolution around the optical flow, stride 1 and the same size, as (N, O, H, W).

    offset = limit * tanh(residual) + flow and mask = sigmoid(logit) (Liang et al., "VRT", 2022, section 3.3, equations
    8 and 9). The kernels make offsets and masks on the fly and keep nothing but the arguments for backward.

    Args:
        x: (N, C, H, W), the channels in one block per neighbour.
        residual: (N, OG * kh * kw * 3, H, W): offsets over the limit before tanh, then mask logits, each ordered as
            in `deform_conv2d`.
        motion: (N, neighbours, 2, H, W) flows in pixels, x first, or None for no motion.
        weight: (O, C / G, kh, kw), kernel sizes odd.
        bias: (O,).
        limit: largest offset from the flow, in pixels.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    padding = (weight.shape[-2] // 2, weight.shape[-1] // 2)
    third = residual.shape[1] // 3
    if residual.shape[1] % 3 or (motion is not None and third % motion.shape[1]):
        raise ValueError(f"{residual.shape[1]} residual channels are no offsets and masks of the neighbours")
    if has_kernels(x, residual, motion, weight, bias):
        from model import deform_triton

        moves, mask = residual[:, : 2 * third], residual[:, 2 * third :]
        _check_shapes(x, moves, weight, mask, (1, 1), padding, (1, 1))
        geometry = {"stride": (1, 1), "padding": padding, "dilation": (1, 1)}
        return deform_triton.deform_conv(x, residual, None, motion, weight, bias, limit=limit, **geometry)
    with full_precision(x):
        moves, mask = at_least_float32(residual).split((2 * third, third), dim=1)
        offset = limit * torch.tanh(moves)
        if motion is not None:
            offset = _add_motion(offset, motion)
        mask = torch.sigmoid(mask)
    return deform_conv2d(x, offset, weight, bias, mask, padding=padding)


def _add_motion(offset: Tensor, motion: Tensor) -> Tensor:
    """Add each neighbour's flow to its share of the offset channels, which are ordered [neighbour][...][y, x]."""
    pairs = offset.unflatten(1, (motion.shape[1], -1, 2))
    flow = motion.flip(2).unsqueeze(2)  # offsets are (y, x), flows (x, y)
    return (pairs + flow.to(offset.dtype)).flatten(1, 3)


def _sampling_grid(
    offset: Tensor,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Where every tap samples, as (B, OG, kh * kw, oh, ow, [x, y]) in grid_sample's coordinates.

    The align_corners=False convention is used because it is also defined for images one pixel high or wide.
    """
    batch, _, height, width = offset.shape
    offset = offset.reshape(batch, -1, kernel[0], kernel[1], 2, height, width)

    def axis(out: int, taps: int, which: int) -> Tensor:
        at = torch.arange(out, device=offset.device, dtype=offset.dtype) * stride[which] - padding[which]
        tap = torch.arange(taps, device=offset.device, dtype=offset.dtype) * dilation[which]
        return tap[:, None] + at

    rows = axis(height, kernel[0], 0).view(kernel[0], 1, height, 1)
    columns = axis(width, kernel[1], 1).view(1, kernel[1], 1, width)
    y = (offset[:, :, :, :, 0] + rows) * (2 / size[0]) + (1 / size[0] - 1)
    x = (offset[:, :, :, :, 1] + columns) * (2 / size[1]) + (1 / size[1] - 1)
    return torch.stack((x, y), dim=-1).flatten(2, 3)


def _check_shapes(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, tuple[int, int]]:
    """Return the weight groups, the offset groups and the output's (height, width)."""
    kernel = weight.shape[-2:]
    taps = kernel[0] * kernel[1]
    height, width = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    channels = x.shape[1]
    if channels % weight.shape[1] or weight.shape[0] % (channels // weight.shape[1]):
        raise ValueError(
            f"weight {tuple(weight.shape)} does not divide {channels} input channels into groups"
        )
    offset_groups = offset.shape[1] // (2 * taps)
    if offset_groups == 0 or offset.shape[1] % (2 * taps) or channels % offset_groups:
        raise ValueError(f"{offset.shape[1]} offset channels do not fit {taps} taps and {channels} channels")
    if tuple(offset.shape) != (x.shape[0], offset.shape[1], height, width):
        raise ValueError(f"offset {tuple(offset.shape)} does not cover an output of {height}x{width}")
    if mask is not None and tuple(mask.shape) != (x.shape[0], offset_groups * taps, height, width):
        raise ValueError(
            f"mask {tuple(mask.shape)} is not ({x.shape[0]}, {offset_groups * taps}, {height}, {width})"
        )
    return channels // weight.shape[1], offset_groups, (height, width)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
