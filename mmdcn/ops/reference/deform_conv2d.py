"""Reference of deform_conv2d and, with a mask, of modulated_deform_conv2d."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .arguments import (
    MAX_SIZE,
    IntPair,
    check_dim,
    check_divisor,
    check_floating,
    check_like,
    check_pair,
    check_pixels,
    check_shape,
    conv_out_size,
    pair,
)
from .autocast import cast_once
from .sampling import bilinear_sample, compute_dtype

__all__ = ["deform_conv2d", "modulated_deform_conv2d"]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """See :func:`mmdcn.ops.deform_conv2d`."""
    return optionally_modulated(
        input, offset, None, weight, bias, stride, padding, dilation, groups, deform_groups
    )


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """See :func:`mmdcn.ops.modulated_deform_conv2d`."""
    return optionally_modulated(
        input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
    )


@cast_once
def optionally_modulated(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
) -> Tensor:
    """Both of them: ``mask`` and ``bias`` may be None."""
    (sh, sw), (ph, pw), (dh, dw) = (
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    )
    *_, height, width = output_shape(
        input, offset, mask, weight, bias, (sh, sw), (ph, pw), (dh, dw), groups, deform_groups
    )
    dtype = compute_dtype(input.dtype)
    batch, channels = input.shape[:2]
    out_channels, _, kh, kw = weight.shape
    taps, pixels = kh * kw, height * width

    points = sampling_points(
        offset.to(dtype), (kh, kw), (sh, sw), (ph, pw), (dh, dw), deform_groups
    )

    def by_group(values):  # (N, Ho, Wo, D, taps) -> (N D, taps Ho Wo)
        return values.permute(0, 3, 4, 1, 2).reshape(batch * deform_groups, taps * pixels)

    maps = input.to(dtype).reshape(
        batch * deform_groups, channels // deform_groups, *input.shape[2:]
    )
    columns = bilinear_sample(maps, by_group(points[..., 1]), by_group(points[..., 0]))
    if mask is not None:
        columns = columns * mask.to(dtype).reshape(maps.shape[0], 1, taps * pixels)
    columns = columns.reshape(batch, groups, channels // groups, taps, pixels)
    kernel = weight.to(dtype).reshape(groups, out_channels // groups, channels // groups, taps)
    out = torch.einsum("ngckp,gock->ngop", columns, kernel)
    out = out.reshape(batch, out_channels, height, width)
    if bias is not None:
        out = out + bias.to(dtype)[:, None, None]
    return out.to(input.dtype)


def sampling_points(offset, kernel_size, stride, padding, dilation, deform_groups) -> Tensor:
    """Where the taps sample, in pixels of the input: ``(N, Ho, Wo, D, kh kw, 2)`` as (x, y)."""
    *_, height, width = offset.shape
    shift = offset.unflatten(1, (deform_groups, math.prod(kernel_size), 2))
    shift = shift.permute(0, 4, 5, 1, 2, 3).flip(-1)

    def axis(index, out):  # position of (output, tap) along one axis
        tap = torch.arange(kernel_size[index], device=offset.device, dtype=offset.dtype)
        first = torch.arange(out, device=offset.device, dtype=offset.dtype)
        return first[:, None] * stride[index] - padding[index] + tap * dilation[index]

    y = axis(0, height).repeat_interleave(kernel_size[1], 1)[:, None, None, :]
    x = axis(1, width).repeat(1, kernel_size[0])[:, None, :]
    grid = torch.stack(torch.broadcast_tensors(x, y), -1)
    return grid + shift


def output_shape(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_dim(input, "input", 4)
    check_dim(weight, "weight", 4)
    check_floating(input, "input")
    for tensor, name in ((offset, "offset"), (mask, "mask"), (weight, "weight"), (bias, "bias")):
        if tensor is not None:
            check_like(tensor, name, input, "input")
    check_pair(stride, "stride", 1)
    check_pair(padding, "padding", 0)
    check_pair(dilation, "dilation", 1)
    batch, channels, height, width = input.shape
    out_channels, _, kh, kw = weight.shape
    check_divisor(groups, "groups", channels, "input channels")
    check_divisor(deform_groups, "deform_groups", channels, "input channels")
    if out_channels <= 0 or out_channels % groups:
        raise ValueError(
            "weight: expected a positive number of output channels that groups "
            f"({groups}) divides, got {out_channels}"
        )
    if kh <= 0 or kw <= 0:
        raise ValueError(f"weight: expected a non-empty kernel, got {kh}x{kw}")
    check_shape(weight, "weight", (out_channels, channels // groups, kh, kw))
    check_pixels(height, width)
    if max(kh, kw) > MAX_SIZE:
        raise ValueError(
            f"weight: expected a kernel of fewer than 2^31 rows and columns, got {kh}x{kw}"
        )
    out_h = conv_out_size(height, kh, stride[0], padding[0], dilation[0])
    out_w = conv_out_size(width, kw, stride[1], padding[1], dilation[1])
    points = deform_groups * kh * kw
    check_shape(offset, "offset", (batch, 2 * points, out_h, out_w))
    if mask is not None:
        check_shape(mask, "mask", (batch, points, out_h, out_w))
    if bias is not None:
        check_shape(bias, "bias", (out_channels,))
    return batch, out_channels, out_h, out_w
