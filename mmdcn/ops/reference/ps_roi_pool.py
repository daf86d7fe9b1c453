"""Reference of position-sensitive RoI pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import pair
from .._autocast import cast_once
from .rois import bin_pixels, box_means, rounded, split_rois


@cast_once(keep=("rois",))
def ps_roi_pool(
    input: Tensor, rois: Tensor, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """See :func:`mmdcn.ops.ps_roi_pool`."""
    from ..ps_roi_pool import check_arguments

    ph, pw = output_size = pair(output_size, "output_size")
    channels = check_arguments(input, rois, output_size, spatial_scale)
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
