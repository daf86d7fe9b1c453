"""RoI poolings in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnxscript import opset18 as op

from mmdcn.onnx.pieces import (
    Value,
    as_float,
    as_int,
    floats,
    integer,
    integers,
    ints,
    part,
    reshape,
    scalar,
    size,
)


def deform_roi_pool(
    input: Value,
    rois: Value,
    offset: Value | None,
    mask: Value | None,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Value:
    """``mmdcn::deform_roi_pool``: ``RoiAlign`` without offsets.

    Raises:
        ValueError: There are offsets, and the number of samples depends on the RoI
            (`sampling_ratio` is 0).
    """
    if offset is None:
        pooled = op.RoiAlign(
            input,
            op.Slice(rois, ints(1), ints(5), ints(1)),
            as_int(part(rois, 0, 1)),
            coordinate_transformation_mode="half_pixel",
            mode="avg",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )
        return pooled if mask is None else op.Mul(pooled, mask)
    if sampling_ratio < 1:
        raise ValueError(
            "sampling_ratio: with offsets, ONNX models need a fixed number of samples per bin, "
            f"at least 1, got {sampling_ratio}"
        )
    (ph, pw), ratio = output_size, sampling_ratio
    index, start_x, start_y, end_x, end_y = corners(rois)
    start_x, start_y, end_x, end_y = (
        op.Sub(op.Mul(corner, floats(spatial_scale)), floats(0.5))
        for corner in (start_x, start_y, end_x, end_y)
    )
    width, height = op.Sub(end_x, start_x), op.Sub(end_y, start_y)
    x = op.Add(start_x, op.Mul(op.Mul(width, floats(gamma)), part(offset, 0, 1)))
    y = op.Add(start_y, op.Mul(op.Mul(height, floats(gamma)), part(offset, 1, 1)))  # (R, ph, pw)
    # All samples of all bins: (R, ph, pw, ratio, ratio).
    steps = (np.arange(ratio) + 0.5) / ratio
    along_x = (np.arange(pw)[:, None, None] + steps) / pw  # (pw, 1, ratio)
    along_y = (np.arange(ph)[:, None, None, None] + steps[:, None]) / ph  # (ph, 1, ratio, 1)
    width, height = (reshape(extent, -1, 1, 1, 1, 1) for extent in (width, height))
    x = op.Add(reshape(x, -1, ph, pw, 1, 1), op.Mul(width, floats(along_x)))
    y = op.Add(reshape(y, -1, ph, pw, 1, 1), op.Mul(height, floats(along_y)))
    inside = op.And(within(y, -1, size(input, 2), 0), within(x, -1, size(input, 3), 0))
    base = op.Mul(index, op.Mul(size(input, 2), size(input, 3)))
    samples = clamped_sample(pixels(input), reshape(base, -1, 1, 1, 1, 1), y, x, input)
    samples = op.Where(op.Unsqueeze(inside, ints(-1)), samples, floats(0))
    pooled = op.ReduceMean(samples, ints(3, 4), keepdims=0)  # (R, ph, pw, C)
    pooled = op.Transpose(pooled, perm=[0, 3, 1, 2])
    return pooled if mask is None else op.Mul(pooled, mask)


def deform_ps_roi_pool(
    input: Value,
    rois: Value,
    offset: Value | None,
    mask: Value | None,
    output_size: Sequence[int],
    output_channels: int,
    group_size: int,
    part_size: Sequence[int],
    sample_per_part: int,
    spatial_scale: float,
    trans_std: float,
) -> Value:
    """``mmdcn::deform_ps_roi_pool``.

    Raises:
        ValueError: The number of classes of the offsets or masks is not known while the graph is
            written.
    """
    (ph, pw), (part_h, part_w) = output_size, part_size
    classes = 1
    for tensor, per_class in ((mask, 1), (offset, 2)):
        if tensor is not None:
            if tensor.shape is None or not isinstance(tensor.shape[1], int):
                raise ValueError("offset, mask: expected a known number of classes")
            classes = tensor.shape[1] // per_class
    index, start_x, start_y, end_x, end_y = corners(rois)
    start_x, start_y = (scaled(round_half_away(v), spatial_scale) for v in (start_x, start_y))
    end_x, end_y = (
        scaled(op.Add(round_half_away(v), floats(1)), spatial_scale) for v in (end_x, end_y)
    )
    roi_w = op.Max(op.Sub(end_x, start_x), floats(0.1))
    roi_h = op.Max(op.Sub(end_y, start_y), floats(0.1))  # (R, 1, 1)
    rows, columns = np.arange(ph), np.arange(pw)

    def at_bins(values: Value) -> Value:
        """Of parts ``(R, classes, part_h, part_w)``, that of each bin ``(R, classes, ph, pw)``."""
        values = op.Gather(values, ints(*(rows * part_h // ph)), axis=2)
        return op.Gather(values, ints(*(columns * part_w // pw)), axis=3)

    # (R, classes, ph, pw, sample_per_part, sample_per_part)
    steps = np.arange(sample_per_part) / sample_per_part
    along_y = (rows[:, None, None, None] + steps[:, None]) / ph
    along_x = (columns[:, None, None] + steps) / pw
    roi_w, roi_h, start_x, start_y = (
        reshape(v, -1, 1, 1, 1, 1, 1) for v in (roi_w, roi_h, start_x, start_y)
    )
    y = op.Add(op.Mul(roi_h, floats(along_y)), start_y)
    x = op.Add(op.Mul(roi_w, floats(along_x)), start_x)
    if offset is not None:
        shift = reshape(offset, -1, classes, 2, part_h, part_w)
        shift_x, shift_y = (
            reshape(at_bins(part(shift, axis, 2)), -1, classes, ph, pw, 1, 1) for axis in (0, 1)
        )
        x = op.Add(x, op.Mul(op.Mul(roi_w, floats(trans_std)), shift_x))
        y = op.Add(y, op.Mul(op.Mul(roi_h, floats(trans_std)), shift_y))
    kept = op.And(within(y, -0.5, size(input, 2), -0.5), within(x, -0.5, size(input, 3), -0.5))
    # Pixels of all maps, with the channels of a class side by side.
    per_class = output_channels // classes
    height, width = size(input, 2), size(input, 3)
    maps = reshape(input, -1, classes, per_class, group_size**2, height, width)
    rows_of_pixels = reshape(op.Transpose(maps, perm=[0, 1, 3, 4, 5, 2]), -1, per_class)
    cell = (rows * group_size // ph * group_size)[:, None] + columns * group_size // pw
    base = op.Add(
        op.Mul(reshape(index, -1, 1, 1, 1), ints(classes * group_size**2)),
        integers(np.arange(classes)[:, None, None] * group_size**2 + cell),
    )
    base = op.Mul(base, op.Mul(height, width))
    base = op.Unsqueeze(base, ints(-1, -2))
    samples = clamped_sample(rows_of_pixels, base, y, x, input)
    samples = op.Where(op.Unsqueeze(kept, ints(-1)), samples, floats(0))
    total = op.ReduceSum(samples, ints(4, 5), keepdims=0)  # (R, classes, ph, pw, per class)
    count = op.ReduceSum(as_float(kept), ints(4, 5), keepdims=0)
    pooled = op.Div(total, op.Unsqueeze(op.Max(count, floats(1)), ints(-1)))
    if mask is not None:
        pooled = op.Mul(pooled, op.Unsqueeze(at_bins(mask), ints(-1)))
    pooled = op.Transpose(pooled, perm=[0, 1, 4, 2, 3])
    return reshape(pooled, -1, output_channels, ph, pw)


def roi_avg_pool(
    input: Value, rois: Value, output_size: Sequence[int], spatial_scale: float
) -> Value:
    """``mmdcn::roi_avg_pool``."""
    ph, pw = output_size
    index, x1, y1, x2, y2 = corners(rois)
    x1, y1, x2, y2 = (whole(op.Mul(v, floats(spatial_scale))) for v in (x1, y1, x2, y2))
    one = ints(1)
    y = bin_edges(y1, op.Max(op.Add(op.Sub(y2, y1), one), one), ph, size(input, 2))
    x = bin_edges(x1, op.Max(op.Add(op.Sub(x2, x1), one), one), pw, size(input, 3))
    sums = integral(op.Transpose(input, perm=[0, 2, 3, 1]))  # (N, H + 1, W + 1, C)
    rows = reshape(sums, -1, size(input, 1))
    area = op.Mul(size(sums, 1), size(sums, 2))
    base = op.Mul(reshape(index, -1, 1, 1), area)
    means = box_means(rows, base, y, x, size(sums, 2))
    return op.Transpose(means, perm=[0, 3, 1, 2])


def ps_roi_pool(
    input: Value, rois: Value, output_size: Sequence[int], spatial_scale: float
) -> Value:
    """``mmdcn::ps_roi_pool``."""
    ph, pw = output_size
    index, x1, y1, x2, y2 = corners(rois)
    x1, y1, x2, y2 = (whole(op.Mul(v, floats(spatial_scale))) for v in (x1, y1, x2, y2))
    one = ints(1)
    y = bin_edges(y1, op.Max(op.Sub(y2, y1), one), ph, op.Sub(size(input, 2), one))
    x = bin_edges(x1, op.Max(op.Sub(x2, x1), one), pw, op.Sub(size(input, 3), one))
    height, width = size(input, 2), size(input, 3)
    channels = op.Div(size(input, 1), ints(ph * pw))
    maps = reshape(input, size(input, 0), channels, ph * pw, height, width)
    maps = reshape(op.Transpose(maps, perm=[0, 2, 3, 4, 1]), -1, height, width, channels)
    sums = integral(maps)
    rows = reshape(sums, -1, channels)
    cell = integers(np.arange(ph * pw).reshape(ph, pw))
    base = op.Add(op.Mul(reshape(index, -1, 1, 1), ints(ph * pw)), cell)
    base = op.Mul(base, op.Mul(size(sums, 1), size(sums, 2)))
    means = box_means(rows, base, y, x, size(sums, 2))
    return op.Transpose(means, perm=[0, 3, 1, 2])


# ------------------------------------------------------------------------------------------- pieces


def corners(rois: Value) -> tuple[Value, ...]:
    """Batch index, x1, y1, x2, y2 of ``(R, 5)``, each ``(R, 1, 1)``; the first one whole."""
    index, *edges = (reshape(part(rois, column, 1), -1, 1, 1) for column in range(5))
    return as_int(index), *edges


def scaled(position: Value, spatial_scale: float) -> Value:
    return op.Sub(op.Mul(position, floats(spatial_scale)), floats(0.5))


def pixels(input: Value) -> Value:
    """Maps ``(N, C, H, W)`` as rows ``(N H W, C)``."""
    return reshape(op.Transpose(input, perm=[0, 2, 3, 1]), -1, size(input, 1))


def within(position: Value, low: float, length: Value, beyond: float) -> Value:
    """Whether low <= position <= length + beyond."""
    high = op.Add(scalar(length), floats(beyond))
    return op.And(op.GreaterOrEqual(position, floats(low)), op.LessOrEqual(position, high))


def round_half_away(position: Value) -> Value:
    """Round to whole numbers, halves away from zero."""
    return op.Mul(op.Sign(position), op.Floor(op.Add(op.Abs(position), floats(0.5))))


def whole(position: Value) -> Value:
    """The same as integers, within what sums of a few can hold."""
    limit = floats(2.0**30)
    rounded = round_half_away(position)
    return as_int(op.Max(op.Min(rounded, limit), op.Neg(limit)))


def clamped_sample(rows: Value, base: Value, y: Value, x: Value, input: Value) -> Value:
    """Bilinear samples at positions that are clamped into a map.

    Args:
        rows: ``(pixels, C)``.
        base: The row where a point's map begins; it broadcasts with the positions.
        y, x: Positions in pixels.
        input: ``(N, C, H, W)``, whose last axes are those of a map.

    Returns:
        The shape of the points, and C last.
    """
    height, width = size(input, 2), size(input, 3)

    def axis(position: Value, length: Value) -> tuple[Value, Value, Value]:
        last = op.Sub(scalar(length), floats(1))
        position = op.Max(op.Min(position, last), floats(0))
        position = op.Where(op.IsNaN(position), floats(0), position)
        low = op.Floor(position)
        high = op.Min(op.Add(low, floats(1)), last)
        return as_int(low), as_int(high), op.Unsqueeze(op.Sub(position, low), ints(-1))

    top, bottom, ly = axis(y, height)
    left, right, lx = axis(x, width)

    def pixel(row: Value, column: Value) -> Value:
        return op.Gather(rows, op.Add(op.Add(base, op.Mul(row, width)), column), axis=0)

    def mixed(one: Value, other: Value, weight: Value) -> Value:
        return op.Add(op.Mul(one, op.Sub(floats(1), weight)), op.Mul(other, weight))

    upper = mixed(pixel(top, left), pixel(top, right), lx)
    lower = mixed(pixel(bottom, left), pixel(bottom, right), lx)
    return mixed(upper, lower, ly)


def bin_edges(start: Value, length: Value, bins: int, limit: Value) -> tuple[Value, Value]:
    """Begin and end of each bin along one axis, in whole pixels, ``(R, bins)``.

    Bin i covers floor(i length / bins) up to ceil((i + 1) length / bins) after ``start``, clipped
    to [0, limit].
    """
    start, length = reshape(start, -1, 1), reshape(length, -1, 1)
    i = np.arange(bins)

    def clipped(position: Value) -> Value:
        return op.Max(op.Min(position, limit), ints(0))

    # Numerators are not negative, so that division rounds down.
    low = op.Div(op.Mul(length, ints(*i)), ints(bins))
    high = op.Div(op.Add(op.Mul(length, ints(*(i + 1))), ints(bins - 1)), ints(bins))
    begin, end = clipped(op.Add(start, low)), clipped(op.Add(start, high))
    return begin, op.Max(begin, end)


def integral(maps: Value) -> Value:
    """Sums of all pixels above and to the left, ``(B, H, W, C)`` -> ``(B, H + 1, W + 1, C)``.

    In double precision, as differences of large sums are taken.
    """
    maps = op.Cast(maps, to=onnx.TensorProto.DOUBLE)
    sums = op.CumSum(op.CumSum(maps, integer(1)), integer(2))
    return op.Pad(sums, ints(0, 1, 1, 0, 0, 0, 0, 0))


def box_means(
    rows: Value,
    base: Value,
    y: tuple[Value, Value],
    x: tuple[Value, Value],
    width: Value,
) -> Value:
    """Means over boxes, 0 for empty ones: ``(R, ph, pw, C)``.

    Args:
        rows: Sums of :func:`integral` as rows.
        base: ``(R, ph, pw)`` or what broadcasts to it: the row where a bin's map begins.
        y, x: Begin and end of the bins, ``(R, ph)`` and ``(R, pw)``.
        width: Of a map of sums.
    """
    top, bottom = (op.Unsqueeze(edge, ints(2)) for edge in y)
    left, right = (op.Unsqueeze(edge, ints(1)) for edge in x)

    def at(row: Value, column: Value) -> Value:
        return op.Gather(rows, op.Add(op.Add(base, op.Mul(row, width)), column), axis=0)

    total = op.Sub(
        op.Add(at(bottom, right), at(top, left)), op.Add(at(top, right), at(bottom, left))
    )
    area = op.Max(op.Mul(op.Sub(bottom, top), op.Sub(right, left)), ints(1))
    mean = op.Div(total, op.Unsqueeze(op.Cast(area, to=onnx.TensorProto.DOUBLE), ints(-1)))
    return as_float(mean)
