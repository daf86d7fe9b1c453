"""Reference of deform_conv2d and, with a mask, of modulated_deform_conv2d."""

from __future__ import annotations

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

    def axis(kernel, step, out, stride, padding):  # grid coordinate of (tap, output position)
        tap = torch.arange(kernel, device=input.device, dtype=dtype) * step
        return tap[:, None] + torch.arange(out, device=input.device, dtype=dtype) * stride - padding

    shift = offset.to(dtype).reshape(batch, deform_groups, kh, kw, 2, height, width)
    y = shift[..., 0, :, :] + axis(kh, dh, height, sh, ph)[:, None, :, None]
    x = shift[..., 1, :, :] + axis(kw, dw, width, sw, pw)[None, :, None, :]

    maps = input.to(dtype).reshape(
        batch * deform_groups, channels // deform_groups, *input.shape[2:]
    )
    columns = bilinear_sample(
        maps, y.reshape(maps.shape[0], taps * pixels), x.reshape(maps.shape[0], taps * pixels)
    )
    if mask is not None:
        columns = columns * mask.to(dtype).reshape(maps.shape[0], 1, taps * pixels)
    columns = columns.reshape(batch, groups, channels // groups, taps, pixels)
    kernel = weight.to(dtype).reshape(groups, out_channels // groups, channels // groups, taps)
    out = torch.einsum("ngckp,gock->ngop", columns, kernel)
    out = out.reshape(batch, out_channels, height, width)
    if bias is not None:
        out = out + bias.to(dtype)[:, None, None]
    return out.to(input.dtype)


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
