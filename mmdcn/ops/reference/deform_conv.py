"""Reference of (modulated) deformable convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import pair
from .._autocast import cast_once
from .sampling import bilinear_sample, compute_dtype


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """See :func:`mmdcn.ops.deform_conv2d`."""
    return _deform_conv2d(
        input, offset, None, weight, bias, stride, padding, dilation, groups, deform_groups
    )


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """See :func:`mmdcn.ops.modulated_deform_conv2d`."""
    return _deform_conv2d(
        input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
    )


@cast_once
def _deform_conv2d(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
) -> Tensor:
    from ..deform_conv import check_arguments

    (sh, sw), (ph, pw), (dh, dw) = (
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    )
    height, width = check_arguments(
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
