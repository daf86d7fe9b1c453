"""Warping of images by a flow."""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.flow_warp import flow_warp as reference
from .reference.flow_warp import output_shape


def flow_warp(input: Tensor, offset: Tensor, unit: IntPair = 1) -> Tensor:
    """Sample every pixel of an image at an offset of its own.

    Bilinear, with zeros outside the image. Where an offset is not finite the sample is 0.

    Args:
        input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16 (the low-precision ones are
            computed in float32).
        offset: ``(N, 2, H, W)``, channel 0 vertical and channel 1 horizontal.
        unit: of the offsets in pixels, an integer or a pair (vertical, horizontal).

    Returns:
        ``(N, C, H, W)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value.
    """
    return call("flow_warp", reference, input, offset, unit)


register(
    "flow_warp",
    reference,
    output_shape=output_shape,
    differentiable=("input", "offset"),
    # Two operations for each of the four neighbours of a sample. Backward: four dot products for
    # the offsets, and four additions to the gradient of the input.
    flops=lambda shapes: 2 * 4 * math.prod(shapes.output),
    backward_flops=lambda shapes: 2 * 8 * math.prod(shapes.grad_output),
)
