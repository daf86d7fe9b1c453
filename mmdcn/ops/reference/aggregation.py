"""Deformable aggregation, which dcnv3 and dcnv4 share: checks of the window, and the sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .arguments import (
    check_dim,
    check_divisor,
    check_floating,
    check_pair,
    check_pixels,
    conv_out_size,
    pair,
)
from .sampling import bilinear_sample


def window_pairs(kernel_size, stride, padding, dilation) -> list[list[int]]:
    """The four as pairs (vertical, horizontal)."""
    return [
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    ]


def check_window(
    input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
) -> tuple[tuple[int, int, int], int]:
    """``(N, Ho, Wo)`` and the number of taps; raises ValueError for arguments that do not fit."""
    check_dim(input, "input", 4)
    check_floating(input, "input")
    check_pair(kernel_size, "kernel_size", 1)
    check_pair(stride, "stride", 1)
    check_pair(padding, "padding", 0)
    check_pair(dilation, "dilation", 1)
    if not math.isfinite(offset_scale):
        raise ValueError(f"offset_scale: expected a finite number, got {offset_scale}")
    kh, kw = kernel_size
    if remove_center and (kh % 2 == 0 or kw % 2 == 0 or kh * kw == 1):
        raise ValueError(
            "remove_center: expected an odd kernel_size of more than one tap, "
            f"got {tuple(kernel_size)}"
        )
    batch, height, width, channels = input.shape
    check_divisor(groups, "groups", channels, "input channels")
    check_pixels(height, width)
    out_h = conv_out_size(height, kh, stride[0], padding[0], dilation[0])
    out_w = conv_out_size(width, kw, stride[1], padding[1], dilation[1])
    return (batch, out_h, out_w), kh * kw - bool(remove_center)


def aggregate(
    input, offset, mask, kernel_size, stride, padding, dilation, offset_scale, remove_center
) -> Tensor:
    """offset ``(N, Ho, Wo, G, P, 2)``, mask ``(N, Ho, Wo, G, P)``, both in the compute dtype."""
    batch, height, width, channels = input.shape
    _, out_h, out_w, groups, taps = mask.shape
    dtype = mask.dtype
    points = sampling_points(
        offset, kernel_size, stride, padding, dilation, offset_scale, remove_center
    )

    def by_group(values):  # (N, Ho, Wo, G, P) -> (N G, Ho Wo P)
        return values.permute(0, 3, 1, 2, 4).reshape(batch * groups, out_h * out_w * taps)

    maps = input.to(dtype).permute(0, 3, 1, 2)
    maps = maps.reshape(batch * groups, channels // groups, height, width)
    samples = bilinear_sample(maps, by_group(points[..., 1]), by_group(points[..., 0]))
    samples = samples * by_group(mask)[:, None]
    out = samples.reshape(batch, channels, out_h, out_w, taps).sum(-1)
    return out.permute(0, 2, 3, 1).contiguous().to(input.dtype)


def sampling_points(
    offset, kernel_size, stride, padding, dilation, offset_scale, remove_center
) -> Tensor:
    """Where the taps sample, in pixels of the input: ``(N, Ho, Wo, G, P, 2)`` as (x, y), the shape
    of `offset`."""
    _, out_h, out_w, _, taps, _ = offset.shape
    dtype, device = offset.dtype, offset.device

    def axis(index, out):  # tap position and output position along one axis (0 = y, 1 = x)
        half = dilation[index] * (kernel_size[index] - 1) // 2
        tap = torch.arange(kernel_size[index], device=device, dtype=dtype) * dilation[index]
        tap = half - padding[index] + (tap - half) * offset_scale
        return tap, torch.arange(out, device=device, dtype=dtype) * stride[index]

    tap_y, base_y = axis(0, out_h)
    tap_x, base_x = axis(1, out_w)
    grid_x = tap_x.repeat_interleave(kernel_size[0])  # width outer, height inner
    grid_y = tap_y.repeat(kernel_size[1])
    if remove_center:
        keep = torch.arange(taps + 1, device=device) != taps // 2
        grid_x, grid_y = grid_x[keep], grid_y[keep]
    x = base_x[:, None, None] + grid_x + offset[..., 0] * offset_scale
    y = base_y[:, None, None, None] + grid_y + offset[..., 1] * offset_scale
    return torch.stack([x, y], -1)
