"""What the references of the RoI operators share: argument checks and pieces of the computation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import (
    MAX_SIZE,
    check_dim,
    check_floating,
    check_like,
    check_pair,
    check_pixels,
    check_shape,
)
from .sampling import compute_dtype

MAX_SAMPLING_RATIO = 1024
# Up to these, the dtypes of RoIs hold all integers.
_LARGEST_INDEX = {torch.bfloat16: 2**8, torch.float16: 2**11}


def check_rois(
    input: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float
) -> None:
    """Raise ValueError for what no RoI operator takes.

    The dtype of ``rois`` is free: coordinates are often needed in float32 beside a low-precision
    ``input``. Their values (the batch indices) are checked when they are read.
    """
    check_dim(input, "input", 4)
    check_floating(input, "input")
    check_dim(rois, "rois", 2)
    check_shape(rois, "rois", (rois.shape[0], 5))
    check_floating(rois, "rois")
    if rois.device != input.device:
        raise ValueError(f"rois: expected the device of input ({input.device}), got {rois.device}")
    check_pair(output_size, "output_size", 1)
    if not (math.isfinite(spatial_scale) and spatial_scale > 0):
        raise ValueError(f"spatial_scale: expected a positive number, got {spatial_scale}")
    check_pixels(*input.shape[2:])
    if output_size[0] * output_size[1] > MAX_SIZE:
        raise ValueError(f"output_size: expected fewer than 2^31 bins, got {tuple(output_size)}")
    largest = _LARGEST_INDEX.get(rois.dtype, 2**24)
    if input.shape[0] > largest + 1:
        raise ValueError(
            f"rois: {rois.dtype} holds batch indices up to {largest} exactly, and input has "
            f"{input.shape[0]} images; use torch.float32"
        )
    if input.shape[1] <= 0:
        raise ValueError(f"input: expected at least one channel, got shape {tuple(input.shape)}")


def check_optional(tensor: Tensor | None, name: str, input: Tensor, shape: tuple) -> None:
    """An optional tensor has the dtype and device of ``input`` and the given shape."""
    if tensor is not None:
        check_like(tensor, name, input, "input")
        check_shape(tensor, name, shape)


def split_rois(input: Tensor, rois: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Batch index (R,), corners ``(R, 4)`` and whether all of these are finite (R,).

    Corners have the dtype of computation, no gradient, and 0 where the RoI is not finite: such a
    RoI pools to 0. Raises ValueError for a batch index out of range.
    """
    rois = rois.detach().to(compute_dtype(input.dtype))
    index, corners = rois[:, 0], rois[:, 1:]
    bad = ~((index >= 0) & (index < input.shape[0]) & (index == index.floor()))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"rois: expected batch indices in [0, {input.shape[0]}), got "
            f"{index[row].item()} in row {row}"
        )
    finite = corners.isfinite().all(1)
    return index.long(), corners.where(finite[:, None], 0.0), finite


def pooled_from_nothing(shape: Sequence[int], *tensors: Tensor | None) -> Tensor:
    """The output of no RoIs, in the graph of the given tensors; it may have any number of bins."""
    nothing = [tensor.flatten()[:0] for tensor in tensors if tensor is not None]
    return torch.cat(nothing).view(*shape)


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


def round_half_away(position: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero (torch.round takes them to the even one)."""
    whole = position.trunc()
    return whole + ((position - whole).abs() >= 0.5) * position.sign()


def rounded(position: Tensor) -> Tensor:
    """Whole pixels as integers, limited so that sums of a few stay exact."""
    return round_half_away(position).clamp(-(2**30), 2**30).long()


def bin_pixels(start: Tensor, size: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """First pixel and number of pixels of each bin along one axis, both ``(R, bins)``.

    Bin ``i`` covers ``floor(i size / bins)`` up to ``ceil((i + 1) size / bins)`` after ``start``,
    clipped to ``[0, limit]``.
    """
    i = torch.arange(bins, device=start.device)
    start, size = start[:, None], size[:, None]
    begin = (start + i * size // bins).clamp(0, limit)
    end = (start + -(-(i + 1) * size // bins)).clamp(0, limit)
    return begin, (end - begin).clamp(min=0)


def box_means(rows: Tensor, base: Tensor, y, x, width: int) -> Tensor:
    """Means over boxes of pixels, 0 for empty ones: ``(R, ph, pw, C)``.

    Args:
        rows: ``(maps * H * W, C)``, pixels as rows.
        base: ``(R, ph, pw)``, the row where a bin's map starts.
        y, x: what :func:`bin_pixels` gives, ``(R, ph)`` and ``(R, pw)``.
        width: of a map.
    """
    (y, height), (x, box_width) = y, x
    height, box_width, _ = torch.broadcast_tensors(height[:, :, None], box_width[:, None], base)
    start = (base + y[:, :, None] * width + x[:, None]).flatten()
    total = rows.new_zeros(base.numel(), rows.shape[1])
    # At least one round, if only for the graph.
    for i in range(max([1, *height.flatten().tolist()])):
        for j in range(max([1, *box_width.flatten().tolist()])):
            some = ((i < height) & (j < box_width)).flatten().nonzero()[:, 0]
            total.index_add_(0, some, rows[start[some] + i * width + j])
    area = (height * box_width).clamp(min=1)
    return total.reshape(*base.shape, rows.shape[1]) / area[..., None]
