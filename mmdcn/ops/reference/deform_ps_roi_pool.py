"""Reference of deformable position-sensitive RoI pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import pair
from .._autocast import cast_once
from .rois import clamped_sample, round_half_away, split_rois


@cast_once(keep=("rois",))
def deform_ps_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: int | Sequence[int] = 7,
    output_channels: int | None = None,
    group_size: int = 7,
    part_size: int | Sequence[int] | None = None,
    sample_per_part: int = 4,
    spatial_scale: float = 1.0,
    trans_std: float = 0.1,
) -> Tensor:
    """See :func:`mmdcn.ops.deform_ps_roi_pool`."""
    from ..deform_ps_roi_pool import check_arguments, default_channels

    ph, pw = output_size = pair(output_size, "output_size")
    part_h, part_w = part_size = pair(output_size if part_size is None else part_size, "part_size")
    if output_channels is None:
        output_channels = default_channels(input, group_size)
    classes = check_arguments(
        input, rois, offset, mask, output_size, output_channels, group_size, part_size,
        sample_per_part, spatial_scale, trans_std,
    )  # fmt: skip
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

    whole = round_half_away(corners)
    start_x, start_y = (whole[:, :2] * spatial_scale - 0.5).unbind(1)
    end_x, end_y = ((whole[:, 2:] + 1) * spatial_scale - 0.5).unbind(1)
    roi_w, roi_h = (end_x - start_x).clamp(min=0.1), (end_y - start_y).clamp(min=0.1)
    for value in (start_x, start_y, roi_w, roi_h):
        finite = finite & value.isfinite()
    start_x, start_y, roi_w, roi_h = (
        value.where(finite, 1.0)[:, None, None, None] for value in (start_x, start_y, roi_w, roi_h)
    )
    finite = finite[:, None, None, None]
    bin_h, bin_w = roi_h / ph, roi_w / pw
    y, x = i[:, None] * bin_h + start_y, j * bin_w + start_x

    def at_bins(values):  # of part cells
        return values.to(dtype)[..., i * part_h // ph, :][..., j * part_w // pw]

    if offset is not None:
        shift = at_bins(offset).unflatten(1, (classes, 2))
        x = x + trans_std * roi_w * shift[:, :, 0]
        y = y + trans_std * roi_h * shift[:, :, 1]

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
        out = out * at_bins(mask)[..., None]
    # (R, classes, ph, pw, channels of a class)
    out = out.permute(0, 1, 4, 2, 3).reshape(rois.shape[0], output_channels, ph, pw)
    return out.to(input.dtype)
