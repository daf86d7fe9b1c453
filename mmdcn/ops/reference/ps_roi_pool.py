"""Reference of position-sensitive RoI pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import IntPair, pair
from .autocast import cast_once
from .rois import bin_pixels, box_means, check_rois, pooled_from_nothing, rounded, split_rois

__all__ = ["ps_roi_pool"]


@cast_once(keep=("rois",))
def ps_roi_pool(
    input: Tensor, rois: Tensor, output_size: IntPair, spatial_scale: float = 1.0
) -> Tensor:
    """See :func:`mmdcn.ops.ps_roi_pool`."""
    ph, pw = output_size = pair(output_size, "output_size")
    shape = output_shape(input, rois, output_size, spatial_scale)
    if rois.shape[0] == 0:
        return pooled_from_nothing(shape, input)
    channels = shape[1]
    index, corners, finite = split_rois(input, rois)
    batch, _, height, width = input.shape
    x1, y1, x2, y2 = rounded(corners * spatial_scale).unbind(1)
    y = bin_pixels(y1, (y2 - y1).clamp(min=1), ph, height - 1)
    x = bin_pixels(x1, (x2 - x1).clamp(min=1), pw, width - 1)
    maps = input.to(corners.dtype).reshape(batch, channels, ph, pw, height, width)
    pixels = maps.permute(0, 2, 3, 4, 5, 1).reshape(-1, channels)
    cell = torch.arange(ph * pw, device=input.device).reshape(ph, pw)
    base = (index[:, None, None] * ph * pw + cell) * height * width
    out = box_means(pixels, base, y, x, width)
    out = out.where(finite[:, None, None, None], 0.0).permute(0, 3, 1, 2)
    return out.contiguous().to(input.dtype)


def output_shape(input, rois, output_size, spatial_scale) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    ph, pw = output_size
    if input.shape[1] % (ph * pw):
        raise ValueError(
            f"input: expected channels that output_size {ph}x{pw} divides, "
            f"got shape {tuple(input.shape)}"
        )
    return rois.shape[0], input.shape[1] // (ph * pw), ph, pw
