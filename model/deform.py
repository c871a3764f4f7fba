"""Modulated deformable convolution (DCNv2) in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.flow import at_least_float32

Pair = int | tuple[int, int]


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
    input channel c follows offset group c // (C / OG). Sampling runs in float32 or wider, whatever autocast says.

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
