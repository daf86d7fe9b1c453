"""DCNv3 and DCNv4 in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnxscript import opset18 as op

from mmdcn.onnx.pieces import Value, counted, floats, ints, part, reshape, sample, size


def dcnv3(
    input: Value,
    offset: Value,
    mask: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_scale: float,
    remove_center: bool,
    mask_softmax: bool,
) -> Value:
    """``mmdcn::dcnv3``."""
    taps = kernel_size[0] * kernel_size[1] - bool(remove_center)
    n, h, w = (size(offset, axis) for axis in (0, 1, 2))
    offset = reshape(offset, n, h, w, groups, taps, 2)
    mask = reshape(mask, n, h, w, groups, taps)
    if mask_softmax:
        mask = op.Softmax(mask, axis=-1)
    window = kernel_size, stride, padding, dilation
    return aggregate(input, offset, mask, window, groups, offset_scale, remove_center)


def dcnv4(
    input: Value,
    offset_mask: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_scale: float,
    remove_center: bool,
) -> Value:
    """``mmdcn::dcnv4``."""
    taps = kernel_size[0] * kernel_size[1] - bool(remove_center)
    n, h, w = (size(offset_mask, axis) for axis in (0, 1, 2))
    used = op.Slice(offset_mask, ints(0), ints(3 * groups * taps), ints(3))
    used = reshape(used, n, h, w, groups, 3 * taps)
    offset = op.Slice(used, ints(0), ints(2 * taps), ints(4))
    mask = op.Slice(used, ints(2 * taps), ints(3 * taps), ints(4))
    offset = reshape(offset, n, h, w, groups, taps, 2)
    window = kernel_size, stride, padding, dilation
    return aggregate(input, offset, mask, window, groups, offset_scale, remove_center)


def aggregate(
    input: Value,
    offset: Value,
    mask: Value,
    window: tuple[Sequence[int], ...],
    groups: int,
    offset_scale: float,
    remove_center: bool,
) -> Value:
    """Input ``(N, H, W, C)``, offset ``(N, h, w, G, P, 2)``, mask ``(N, h, w, G, P)``."""
    (kh, kw), stride, padding, dilation = window
    taps = kh * kw - bool(remove_center)
    n, h, w, channels = size(offset, 0), size(offset, 1), size(offset, 2), size(input, 3)

    def axis(index: int, kernel: int, out: Value) -> tuple[np.ndarray, Value]:
        half = dilation[index] * (kernel - 1) // 2
        tap = np.arange(kernel) * dilation[index]
        tap = half - padding[index] + (tap - half) * offset_scale
        return tap, op.Mul(counted(out), floats(stride[index]))

    tap_y, y = axis(0, kh, h)
    tap_x, x = axis(1, kw, w)
    tap_y, tap_x = np.tile(tap_y, kw), np.repeat(tap_x, kh)  # columns outer, rows inner
    if remove_center:
        tap_y, tap_x = (np.delete(tap, taps // 2) for tap in (tap_y, tap_x))
    x = op.Add(reshape(x, -1, 1), floats(tap_x))  # (w, P)
    y = op.Add(reshape(y, -1, 1, 1), floats(tap_y))  # (h, 1, P)

    offset = op.Mul(op.Transpose(offset, perm=[0, 3, 1, 2, 4, 5]), floats(offset_scale))
    x, y = op.Add(part(offset, 0, 5), x), op.Add(part(offset, 1, 5), y)  # (N, G, h, w, P)
    all_groups, beside = op.Mul(n, ints(groups)), op.Mul(w, ints(taps))  # taps side by side
    x, y = (reshape(position, all_groups, h, beside) for position in (x, y))

    height, width, depth = size(input, 1), size(input, 2), op.Div(channels, ints(groups))
    maps = reshape(input, n, height, width, groups, depth)
    maps = op.Transpose(maps, perm=[0, 3, 4, 1, 2])
    maps = reshape(maps, all_groups, depth, height, width)
    samples = reshape(sample(maps, y, x), n, groups, depth, h, w, taps)
    mask = op.Unsqueeze(op.Transpose(mask, perm=[0, 3, 1, 2, 4]), ints(2))
    output = op.ReduceSum(op.Mul(samples, mask), ints(5), keepdims=0)  # (N, G, D, h, w)
    return reshape(op.Transpose(output, perm=[0, 3, 4, 1, 2]), n, h, w, channels)
