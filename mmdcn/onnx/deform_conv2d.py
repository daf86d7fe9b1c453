"""Deformable convolution v1 and v2: the standard operator, and other standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnxscript import opset18 as op
from onnxscript import opset19

from mmdcn.onnx.pieces import Value, counted, floats, ints, part, reshape, sample, size


def deform_conv2d(
    input: Value,
    offset: Value,
    mask: Value | None,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Value:
    """``mmdcn::deform_conv2d`` as ``DeformConv``, which opset 19 has brought."""
    return opset19.DeformConv(
        input,
        weight,
        offset,
        bias,
        mask,
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
        offset_group=deform_groups,
    )


def in_standard_operators(
    input: Value,
    offset: Value,
    mask: Value | None,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Value:
    """``mmdcn::deform_conv2d`` as ``GridSample`` and ``Conv``.

    Raises:
        ValueError: The size of the kernel is not known while the graph is written.
    """
    kernel = [weight.shape[axis] for axis in (2, 3)] if weight.shape is not None else [None]
    if not all(isinstance(length, int) for length in kernel):
        raise ValueError(f"weight: expected a kernel of known size, got {kernel}")
    kh, kw = kernel
    taps = kh * kw
    n, h, w, channels = size(input, 0), size(offset, 2), size(offset, 3), size(input, 1)
    all_groups, depth = op.Mul(n, ints(deform_groups)), op.Div(channels, ints(deform_groups))
    offset = reshape(offset, all_groups, taps, 2, h, w)

    def axis(index: int, tap: np.ndarray, out: Value) -> Value:
        first = op.Mul(counted(out), floats(stride[index]))
        shape = (-1, 1) if index == 0 else (1, -1)
        tap = tap.reshape(-1, 1, 1) * dilation[index] - padding[index]
        return op.Add(reshape(first, *shape), floats(tap))

    y = op.Add(part(offset, 0, 2), axis(0, np.repeat(np.arange(kh), kw), h))
    x = op.Add(part(offset, 1, 2), axis(1, np.tile(np.arange(kw), kh), w))
    below = op.Mul(h, ints(taps))  # taps one below the other
    y, x = (reshape(position, all_groups, below, w) for position in (y, x))
    maps = reshape(input, all_groups, depth, size(input, 2), size(input, 3))
    columns = reshape(sample(maps, y, x), n, deform_groups, depth, taps, h, w)
    if mask is not None:
        columns = op.Mul(columns, reshape(mask, n, deform_groups, 1, taps, h, w))
    columns = reshape(columns, n, op.Mul(channels, ints(taps)), h, w)
    kernel = reshape(weight, size(weight, 0), -1, 1, 1)
    return op.Conv(columns, kernel, bias, group=groups, kernel_shape=[1, 1])
