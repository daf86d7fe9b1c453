"""What the translations share: shapes that may be dynamic, constants, and sampling.

The functions write nodes of opset 18 into the graph that is being exported. Whatever stands for a
tensor is a value of that graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnxscript import opset18 as op

Value = Any  # of the graph
FAR = -2.0  # a position at which nothing is sampled


def integers(values: Any) -> Value:
    """A constant tensor of whole numbers."""
    return op.Constant(value=onnx.numpy_helper.from_array(np.array(values, np.int64)))


def integer(value: int) -> Value:
    """A constant without axes."""
    return integers(value)


def ints(*values: int) -> Value:
    """A constant list of whole numbers."""
    return integers(values)


def floats(values: Any) -> Value:
    """A constant tensor of single precision."""
    return op.Constant(value=onnx.numpy_helper.from_array(np.array(values, np.float32)))


def size(value: Value, axis: int) -> Value:
    """The length of an axis, ``(1,)``."""
    return op.Shape(value, start=axis, end=axis + 1)


def reshape(value: Value, *sizes: int | Value) -> Value:
    """The value in another shape; a size is a number, -1 for what is left, or ``(1,)``."""
    parts: list[Value] = []
    for is_number, run in _runs(sizes):
        parts += [ints(*run)] if is_number else run
    shape = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)
    return op.Reshape(value, shape)


def _runs(sizes: Sequence[int | Value]) -> list[tuple[bool, list]]:
    runs: list[tuple[bool, list]] = []
    for one in sizes:
        is_number = isinstance(one, int)
        if not runs or runs[-1][0] != is_number:
            runs.append((is_number, []))
        runs[-1][1].append(one)
    return runs


def counted(length: Value) -> Value:
    """0, 1, 2, ... as floats; ``length`` is ``(1,)``."""
    return as_float(op.Range(integer(0), op.Squeeze(length, ints(0)), integer(1)))


def as_float(value: Value) -> Value:
    return op.Cast(value, to=onnx.TensorProto.FLOAT)


def as_int(value: Value) -> Value:
    return op.Cast(value, to=onnx.TensorProto.INT64)


def scalar(value: Value) -> Value:
    """The only element of ``(1,)``, as a float without axes."""
    return op.Squeeze(as_float(value), ints(0))


def part(value: Value, index: int, axis: int) -> Value:
    """The slice at an index, without the axis."""
    return op.Squeeze(op.Slice(value, ints(index), ints(index + 1), ints(axis)), ints(axis))


def sample(maps: Value, y: Value, x: Value) -> Value:
    """Bilinear samples with zeros outside, as :mod:`mmdcn.ops.reference.sampling` defines them.

    Args:
        maps: ``(B, C, H, W)``.
        y, x: Positions in pixels, of shapes that broadcast to ``(B, h, w)``. One that is not finite
            gives 0.

    Returns:
        ``(B, C, h, w)``.
    """

    def normalized(position: Value, axis: int) -> Value:
        length = scalar(size(maps, axis))
        # Beyond one pixel outside nothing changes any more, and runtimes turn this into integers.
        position = op.Max(op.Min(position, op.Add(length, floats(1))), floats(FAR))
        position = op.Where(op.IsNaN(position), floats(FAR), position)
        return op.Sub(op.Div(op.Add(op.Mul(position, floats(2)), floats(1)), length), floats(1))

    y, x = normalized(y, 2), normalized(x, 3)
    shape = op.Shape(op.Add(y, x))
    grid = op.Concat(
        op.Unsqueeze(op.Expand(x, shape), ints(-1)),
        op.Unsqueeze(op.Expand(y, shape), ints(-1)),
        axis=-1,
    )
    return op.GridSample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=0)
