"""Reference of deformable position-sensitive RoI pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .arguments import (
    IntPair,
    check_dim,
    check_like,
    check_pair,
    check_positive,
    check_shape,
    pair,
)
from .autocast import cast_once
from .rois import (
    MAX_SAMPLING_RATIO,
    check_rois,
    clamped_sample,
    pooled_from_nothing,
    round_half_away,
    split_rois,
)

__all__ = ["deform_ps_roi_pool"]


@cast_once(keep=("rois",))
def deform_ps_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: IntPair = 7,
    output_channels: int | None = None,
    group_size: int = 7,
    part_size: IntPair | None = None,
    sample_per_part: int = 4,
    spatial_scale: float = 1.0,
    trans_std: float = 0.1,
) -> Tensor:
    """See :func:`mmdcn.ops.deform_ps_roi_pool`."""
    ph, pw = output_size = pair(output_size, "output_size")
    part_h, part_w = part_size = pair(output_size if part_size is None else part_size, "part_size")
    if output_channels is None:
        output_channels = default_channels(input, group_size)
    shape = output_shape(
        input, rois, offset, mask, output_size, output_channels, group_size, part_size,
        sample_per_part, spatial_scale, trans_std,
    )  # fmt: skip
    if rois.shape[0] == 0:
        return pooled_from_nothing(shape, input, offset, mask)
    classes = number_of_classes(offset, mask)
    index, corners, finite = split_rois(input, rois)
    dtype, device = corners.dtype, input.device
    batch, _, height, width = input.shape
    maps = input.to(dtype).reshape(
        batch, classes, output_channels // classes, group_size, group_size, height, width
    )
    pixels = maps.permute(0, 1, 3, 4, 5, 6, 2).reshape(-1, output_channels // classes)

    # RoIs, classes, then bins: (R, classes, ph, pw).
    i, j = torch.arange(ph, device=device), torch.arange(pw, device=device)
    cell = (i * group_size // ph * group_size)[:, None] + j * group_size // pw
    map_index = index[:, None] * classes + torch.arange(classes, device=device)
    base = (map_index[..., None, None] * group_size**2 + cell) * height * width

    start, bin_size, finite = bin_corners(
        corners, finite, offset, classes, output_size, part_size, spatial_scale, trans_std
    )
    x, y = start.unbind(-1)
    bin_w, bin_h = bin_size[:, None, None, None].unbind(-1)
    finite = finite[:, None, None, None]

    total, count = 0.0, 0
    for p in range(sample_per_part):
        for q in range(sample_per_part):
            yp, xq = torch.broadcast_tensors(
                y + p * (bin_h / sample_per_part), x + q * (bin_w / sample_per_part)
            )
            kept = (yp >= -0.5) & (yp <= height - 0.5) & (xq >= -0.5) & (xq <= width - 0.5)
            kept = kept & finite
            # A point that is left out must not pass on a gradient, not even a NaN.
            sample = clamped_sample(
                pixels, base, yp.where(kept, 0.0), xq.where(kept, 0.0), (height, width)
            )
            total = total + sample.where(kept[..., None], 0.0)
            count = count + kept
    out = total / count.clamp(min=1)[..., None]
    if mask is not None:
        out = out * at_bins(mask.to(dtype), output_size, part_size)[..., None]
    # (R, classes, ph, pw, channels of a class)
    out = out.permute(0, 1, 4, 2, 3).reshape(rois.shape[0], output_channels, ph, pw)
    return out.to(input.dtype)


def bin_corners(
    corners, finite, offset, classes, output_size, part_size, spatial_scale, trans_std
) -> tuple[Tensor, Tensor, Tensor]:
    """The upper left corner of each bin ``(R, classes, ph, pw, 2)`` and the size of a RoI's bins
    ``(R, 2)``, as (x, y) in pixels of the input, and whether all of a RoI is finite ``(R,)``."""
    ph, pw = output_size
    whole = round_half_away(corners)
    start = whole[:, :2] * spatial_scale - 0.5
    end = (whole[:, 2:] + 1) * spatial_scale - 0.5
    size = (end - start).clamp(min=0.1)
    finite = finite & start.isfinite().all(1) & size.isfinite().all(1)
    start, size = (value.where(finite[:, None], 1.0) for value in (start, size))
    bin_size = size / size.new_tensor([pw, ph])
    (start_x, start_y), (bin_w, bin_h) = (
        value[:, None, None, None].unbind(-1) for value in (start, bin_size)
    )
    i = torch.arange(ph, device=corners.device)[:, None]
    j = torch.arange(pw, device=corners.device)
    y, x = i * bin_h + start_y, j * bin_w + start_x
    if offset is not None:
        shift = at_bins(offset.to(corners.dtype), output_size, part_size)
        shift = shift.unflatten(1, (classes, 2))
        roi_w, roi_h = size[:, None, None, None].unbind(-1)
        x = x + trans_std * roi_w * shift[:, :, 0]
        y = y + trans_std * roi_h * shift[:, :, 1]
    shape = (corners.shape[0], classes, ph, pw)
    return torch.stack([x.expand(shape), y.expand(shape)], -1), bin_size, finite


def at_bins(values: Tensor, output_size, part_size) -> Tensor:
    """Of the values of part cells ``(..., part_h, part_w)``, that of each bin ``(..., ph, pw)``."""
    (ph, pw), (part_h, part_w) = output_size, part_size
    i = torch.arange(ph, device=values.device) * part_h // ph
    j = torch.arange(pw, device=values.device) * part_w // pw
    return values[..., i, :][..., j]


def default_channels(input: Tensor, group_size: int) -> int:
    """Number of output channels that follows from ``input``."""
    check_positive(group_size, "group_size")
    if input.dim() != 4 or input.shape[1] % group_size**2:
        raise ValueError(
            f"input: expected a 4-dimensional tensor with channels that group_size "
            f"{group_size}x{group_size} divides, got shape {tuple(input.shape)}"
        )
    return input.shape[1] // group_size**2


def output_shape(
    input, rois, offset, mask, output_size, output_channels, group_size, part_size,
    sample_per_part, spatial_scale, trans_std,
) -> tuple[int, ...]:  # fmt: skip
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    for value, name in ((output_channels, "output_channels"), (group_size, "group_size")):
        check_positive(value, name)
    check_pair(part_size, "part_size", 1)
    if not 0 < sample_per_part <= MAX_SAMPLING_RATIO:
        raise ValueError(
            f"sample_per_part: expected an integer in [1, {MAX_SAMPLING_RATIO}], "
            f"got {sample_per_part}"
        )
    if not math.isfinite(trans_std):
        raise ValueError(f"trans_std: expected a finite number, got {trans_std}")
    batch, _, height, width = input.shape
    check_shape(input, "input", (batch, output_channels * group_size**2, height, width))

    for tensor, name, per_class in ((offset, "offset", 2), (mask, "mask", 1)):
        if tensor is None:
            continue
        check_like(tensor, name, input, "input")
        check_dim(tensor, name, 4)
        found = tensor.shape[1] // per_class
        if tensor.shape[1] % per_class or not found or output_channels % found:
            raise ValueError(
                f"{name}: expected {per_class} channels per class, in a number of classes that "
                f"divides output_channels ({output_channels}), got {tensor.shape[1]} channels"
            )
        classes = number_of_classes(offset, mask)
        check_shape(tensor, name, (rois.shape[0], per_class * classes, *part_size))
    return rois.shape[0], output_channels, *output_size


def number_of_classes(offset: Tensor | None, mask: Tensor | None) -> int:
    if offset is not None:
        return offset.shape[1] // 2
    return 1 if mask is None else mask.shape[1]
