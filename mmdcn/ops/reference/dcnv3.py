"""Reference of dcnv3 and dcnv4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import pair
from .._autocast import cast_once
from .sampling import bilinear_sample, compute_dtype


@cast_once
def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    mask_softmax: bool = False,
) -> Tensor:
    """See :func:`mmdcn.ops.dcnv3`."""
    from ..dcnv3 import check_dcnv3

    window = _pairs(kernel_size, stride, padding, dilation)
    check_dcnv3(input, offset, mask, *window, groups, offset_scale, remove_center)
    dtype = compute_dtype(input.dtype)
    taps = mask.shape[-1] // groups
    offset = offset.to(dtype).unflatten(-1, (groups, taps, 2))
    mask = mask.to(dtype).unflatten(-1, (groups, taps))
    if mask_softmax:
        mask = mask.softmax(-1)
    return _aggregate(input, offset, mask, *window, offset_scale, remove_center)


@cast_once
def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_size: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> Tensor:
    """See :func:`mmdcn.ops.dcnv4`."""
    from ..dcnv4 import check_dcnv4

    window = _pairs(kernel_size, stride, padding, dilation)
    check_dcnv4(input, offset_mask, *window, groups, offset_scale, remove_center)
    (kh, kw), dtype = window[0], compute_dtype(input.dtype)
    taps = kh * kw - remove_center
    used = offset_mask[..., : 3 * groups * taps].to(dtype).unflatten(-1, (groups, 3 * taps))
    offset = used[..., : 2 * taps].unflatten(-1, (taps, 2))
    return _aggregate(input, offset, used[..., 2 * taps :], *window, offset_scale, remove_center)


def _pairs(kernel_size, stride, padding, dilation) -> list[list[int]]:
    return [
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    ]


def _aggregate(
    input, offset, mask, kernel_size, stride, padding, dilation, offset_scale, remove_center
) -> Tensor:
    """offset ``(N, Ho, Wo, G, P, 2)``, mask ``(N, Ho, Wo, G, P)``, both in the compute dtype."""
    batch, height, width, channels = input.shape
    _, out_h, out_w, groups, taps = mask.shape
    dtype, device = mask.dtype, mask.device

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

    def by_group(points):  # (N, Ho, Wo, G, P) -> (N G, Ho Wo P)
        return points.permute(0, 3, 1, 2, 4).reshape(batch * groups, out_h * out_w * taps)

    maps = input.to(dtype).permute(0, 3, 1, 2)
    maps = maps.reshape(batch * groups, channels // groups, height, width)
    samples = bilinear_sample(maps, by_group(y), by_group(x)) * by_group(mask)[:, None]
    out = samples.reshape(batch, channels, out_h, out_w, taps).sum(-1)
    return out.permute(0, 2, 3, 1).contiguous().to(input.dtype)
