"""Reference of average RoI pooling."""

from __future__ import annotations

from torch import Tensor

from .arguments import IntPair, pair
from .autocast import cast_once
from .rois import bin_pixels, box_means, check_rois, pooled_from_nothing, rounded, split_rois

__all__ = ["roi_avg_pool"]


@cast_once(keep=("rois",))
def roi_avg_pool(
    input: Tensor, rois: Tensor, output_size: IntPair, spatial_scale: float = 1.0
) -> Tensor:
    """See :func:`mmdcn.ops.roi_avg_pool`."""
    ph, pw = output_size = pair(output_size, "output_size")
    shape = output_shape(input, rois, output_size, spatial_scale)
    if rois.shape[0] == 0:
        return pooled_from_nothing(shape, input)
    index, corners, finite = split_rois(input, rois)
    height, width = input.shape[2:]
    x1, y1, x2, y2 = rounded(corners * spatial_scale).unbind(1)
    y = bin_pixels(y1, (y2 - y1 + 1).clamp(min=1), ph, height)
    x = bin_pixels(x1, (x2 - x1 + 1).clamp(min=1), pw, width)
    pixels = input.to(corners.dtype).permute(0, 2, 3, 1).reshape(-1, input.shape[1])
    base = (index * height * width)[:, None, None].expand(-1, ph, pw)
    out = box_means(pixels, base, y, x, width)
    out = out.where(finite[:, None, None, None], 0.0).permute(0, 3, 1, 2)
    return out.contiguous().to(input.dtype)


def output_shape(input, rois, output_size, spatial_scale) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    return rois.shape[0], input.shape[1], *output_size
