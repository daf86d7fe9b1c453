"""Average RoI pooling."""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.roi_avg_pool import output_shape
from .reference.roi_avg_pool import roi_avg_pool as reference


def roi_avg_pool(
    input: Tensor, rois: Tensor, output_size: IntPair, spatial_scale: float = 1.0
) -> Tensor:
    r"""The mean over each bin of a region of interest (RoI): the regular RoI pooling of
    `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_, with the whole-pixel
    bins of `Fast R-CNN <https://arxiv.org/abs/1504.08083>`_.

    Corners are ``round(v * spatial_scale)``, halves away from zero, and the far one belongs to the
    RoI, which is at least one pixel large. Bin ``i`` of ``ph`` covers rows ``floor(i h / ph)`` up
    to ``ceil((i + 1) h / ph)`` of a RoI of height ``h``, columns alike, as far as they are inside
    the map. A bin without a pixel is 0, as is a RoI with a coordinate that is not finite. There is
    no gradient for ``rois``.

    Args:
        input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16 (the low-precision ones are
            accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        spatial_scale: pixels of ``input`` per pixel of the image.

    Returns:
        ``(R, C, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    return call("roi_avg_pool", reference, input, rois, output_size, spatial_scale)


# How many pixels a bin has, the shapes do not say: it counts as one.
register(
    "roi_avg_pool",
    reference,
    output_shape=output_shape,
    differentiable=("input",),
    flops=lambda shapes: math.prod(shapes.output),
    backward_flops=lambda shapes: math.prod(shapes.grad_output),
    keeps_memory_format=("input",),
    autocast_keeps=("rois",),
)
