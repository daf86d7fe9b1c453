"""Pieces of the RoI operators' references."""

from __future__ import annotations

import torch
from torch import Tensor

from .sampling import compute_dtype


def split_rois(input: Tensor, rois: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Batch index (R,), corners ``(R, 4)`` and whether all of these are finite (R,).

    Corners have the dtype of computation, no gradient, and 0 where the RoI is not finite: such a
    RoI pools to 0. Raises ValueError for a batch index out of range.
    """
    rois = rois.detach().to(compute_dtype(input.dtype))
    index, corners = rois[:, 0], rois[:, 1:]
    bad = ~((index >= 0) & (index < input.shape[0]))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"rois: expected batch indices in [0, {input.shape[0]}), got {index[row].item()} in "
            f"row {row}"
        )
    finite = corners.isfinite().all(1)
    return index.long(), corners.where(finite[:, None], 0.0), finite


def clamped_sample(rows: Tensor, base: Tensor, y: Tensor, x: Tensor, size) -> Tensor:
    """Bilinear samples of maps at positions that are clamped into the map.

    The derivative with respect to a clamped coordinate is 0.

    Args:
        rows: ``(maps * H * W, C)``, pixels as rows.
        base: the row where a point's map starts.
        y, x: positions in pixels; any shape that broadcasts with that of ``base``.
        size: ``(H, W)``.

    Returns:
        The shape of the points, and ``C`` last.
    """

    def axis(position, size):
        inside = (position >= 0) & (position <= size - 1)
        position = position.where(inside, position.detach().clamp(0, size - 1).nan_to_num(0.0))
        low = position.detach().floor().long()
        high = torch.where(inside, (low + 1).clamp(max=size - 1), low)
        return low, high, position - low

    height, width = size
    top, bottom, ly = axis(y, height)
    left, right, lx = axis(x, width)
    ly, lx = ly[..., None], lx[..., None]

    def pixel(row, column):
        return rows[base + row * width + column]

    upper = pixel(top, left) * (1 - lx) + pixel(top, right) * lx
    lower = pixel(bottom, left) * (1 - lx) + pixel(bottom, right) * lx
    return upper * (1 - ly) + lower * ly
