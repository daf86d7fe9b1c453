"""Reference of deformable RoI pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .arguments import IntPair, pair
from .autocast import cast_once
from .rois import (
    MAX_SAMPLING_RATIO,
    check_optional,
    check_rois,
    clamped_sample,
    pooled_from_nothing,
    split_rois,
)

__all__ = ["deform_roi_pool"]


@cast_once(keep=("rois",))
def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: IntPair = 7,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """See :func:`mmdcn.ops.deform_roi_pool`."""
    ph, pw = output_size = pair(output_size, "output_size")
    shape = output_shape(
        input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma
    )
    if rois.shape[0] == 0:
        return pooled_from_nothing(shape, input, offset, mask)
    index, corners, finite = split_rois(input, rois)
    dtype, size = corners.dtype, input.shape[2:]
    channels = input.shape[1]
    pixels = input.to(dtype).permute(0, 2, 3, 1).reshape(-1, channels)

    # RoIs first, then bins: (R, ph, pw).
    start, roi_size, finite = bin_corners(
        corners, finite, offset, output_size, spatial_scale, gamma
    )
    start_x, start_y = start.unbind(-1)
    roi_w, roi_h = roi_size.unbind(-1)
    bin_h, bin_w = (roi_h / ph)[:, None, None], (roi_w / pw)[:, None, None]

    if sampling_ratio > 0:
        grid_h = torch.full_like(roi_h, sampling_ratio)
        grid_w = torch.full_like(roi_w, sampling_ratio)
    else:
        grid_h = (roi_h / ph).ceil().clamp(0, 4 * size[0])
        grid_w = (roi_w / pw).ceil().clamp(0, 4 * size[1])
    grid_h, grid_w = grid_h.where(finite, 0.0), grid_w.where(finite, 0.0)

    total = pixels.new_zeros(rois.shape[0], ph, pw, channels)
    # At least one round, if only for the graph.
    steps_y, steps_x = (max([1, *g.int().tolist()]) for g in (grid_h, grid_w))
    for i in range(steps_y):
        for j in range(steps_x):
            some = ((i < grid_h) & (j < grid_w)).nonzero()[:, 0]
            y = start_y[some] + (i + 0.5) * bin_h[some] / grid_h[some, None, None]
            x = start_x[some] + (j + 0.5) * bin_w[some] / grid_w[some, None, None]
            inside = (y >= -1) & (y <= size[0]) & (x >= -1) & (x <= size[1])
            # A point that is left out must not pass on a gradient, not even a NaN.
            y, x = y.where(inside, 0.0), x.where(inside, 0.0)
            base = (index[some] * size[0] * size[1])[:, None, None]
            sample = clamped_sample(pixels, base, y, x, size)
            total.index_add_(0, some, sample.where(inside[..., None], 0.0))
    count = (grid_h * grid_w).clamp(min=1)
    out = (total / count[:, None, None, None]).permute(0, 3, 1, 2)
    if mask is not None:
        out = out * mask.to(dtype)
    return out.contiguous().to(input.dtype)


def bin_corners(
    corners, finite, offset, output_size, spatial_scale, gamma
) -> tuple[Tensor, Tensor, Tensor]:
    """The upper left corner of each bin ``(R, ph, pw, 2)`` and the size of a RoI ``(R, 2)``, as
    (x, y) in pixels of the input, and whether all of a RoI is finite ``(R,)``."""
    ph, pw = output_size
    bins_y = torch.arange(ph, device=corners.device, dtype=corners.dtype)[:, None]
    bins_x = torch.arange(pw, device=corners.device, dtype=corners.dtype)[None, :]
    start = corners[:, :2] * spatial_scale - 0.5
    size = corners[:, 2:] * spatial_scale - 0.5 - start
    finite = finite & start.isfinite().all(1) & size.isfinite().all(1)
    roi_w, roi_h = size.unbind(1)
    x, y = start[:, 0, None, None], start[:, 1, None, None]
    if offset is not None:
        shift = offset.to(corners.dtype)
        unit = (gamma * size).where(finite[:, None], 0.0)
        x = x + unit[:, 0, None, None] * shift[:, 0]
        y = y + unit[:, 1, None, None] * shift[:, 1]
    y, x = y + bins_y * (roi_h / ph)[:, None, None], x + bins_x * (roi_w / pw)[:, None, None]
    return torch.stack(torch.broadcast_tensors(x, y), -1), size, finite


def output_shape(
    input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma
) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    if not 0 <= sampling_ratio <= MAX_SAMPLING_RATIO:
        raise ValueError(
            f"sampling_ratio: expected an integer in [0, {MAX_SAMPLING_RATIO}], "
            f"got {sampling_ratio}"
        )
    if not math.isfinite(gamma):
        raise ValueError(f"gamma: expected a finite number, got {gamma}")
    check_optional(offset, "offset", input, (rois.shape[0], 2, *output_size))
    check_optional(mask, "mask", input, (rois.shape[0], 1, *output_size))
    return rois.shape[0], input.shape[1], *output_size
