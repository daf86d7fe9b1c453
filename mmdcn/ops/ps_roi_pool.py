"""Position-sensitive RoI pooling."""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.ps_roi_pool import output_shape
from .reference.ps_roi_pool import ps_roi_pool as reference


def ps_roi_pool(
    input: Tensor, rois: Tensor, output_size: IntPair, spatial_scale: float = 1.0
) -> Tensor:
    r"""Position-sensitive pooling of regions of interest (RoIs): every bin averages channels of
    its own. `R-FCN <https://arxiv.org/abs/1605.06409>`_ (Dai et al., 2016).

    Bin ``(i, j)`` of class ``c`` is the mean of channel ``(c * ph + i) * pw + j`` over the bin's
    pixels. Corners are ``round(v * spatial_scale)``, halves away from zero; the far one does not
    belong to the RoI, which is at least one pixel large. Bin ``i`` covers rows ``floor(i h / ph)``
    up to ``ceil((i + 1) h / ph)`` of a RoI of height ``h``, columns alike, clipped to
    ``[0, H - 1)`` and ``[0, W - 1)``: the last row and column of the map are never read. A bin
    without a pixel is 0, as is a RoI with a coordinate that is not finite. There is no gradient
    for ``rois``.

    These are the numbers of ``torchvision.ops.ps_roi_pool``, except for two flaws of its version
    0.29: rounding adds a pixel to the last bin for a few sizes (57 pixels in 7 bins), and the
    gradient reaches the last row and column, on which the output does not depend.

    Args:
        input: ``(N, C * ph * pw, H, W)``; float64, float32, bfloat16 or float16 (the low-precision
            ones are accumulated in float32).
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
    return call("ps_roi_pool", reference, input, rois, output_size, spatial_scale)


# How many pixels a bin has, the shapes do not say: it counts as one.
register(
    "ps_roi_pool",
    reference,
    output_shape=output_shape,
    differentiable=("input",),
    flops=lambda shapes: math.prod(shapes.output),
    backward_flops=lambda shapes: math.prod(shapes.grad_output),
    keeps_memory_format=("input",),
    autocast_keeps=("rois",),
)
