"""Deformable RoI pooling.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017, section
2.2); with a mask, `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019).
"""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.deform_roi_pool import deform_roi_pool as reference
from .reference.deform_roi_pool import output_shape


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: IntPair = 7,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    r"""Pool each region of interest (RoI) into bins that a learnt offset may shift.

    A bin is the mean of bilinear samples on an even grid, scaled by its mask. Without ``offset``
    and ``mask`` this is RoIAlign with half-pixel alignment (``aligned=True``).

    A sample more than a pixel outside the map is 0, others are clamped into it. A bin with an
    offset that is not finite, and all bins of a RoI with a coordinate that is not finite, pool to
    0 and have a zero gradient, as do bins of a RoI of negative size on an adaptive grid. There is
    no gradient for ``rois``.

    Args:
        input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16 (the low-precision ones are
            accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        offset: ``(R, 2, ph, pw)`` or None. Channel 0 shifts a bin horizontally, channel 1
            vertically, in units of ``gamma`` times the width or height of the RoI.
        mask: ``(R, 1, ph, pw)`` or None, the factor of each bin.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        spatial_scale: pixels of ``input`` per pixel of the image.
        sampling_ratio: samples per bin along each axis. 0 takes one per pixel, rounded up; at
            most four times the size of the map.
        gamma: scale of the offsets.

    Returns:
        ``(R, C, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    return call(
        "deform_roi_pool", reference, input, rois, offset, mask, output_size, spatial_scale,
        sampling_ratio, gamma,
    )  # fmt: skip


def _flops(shapes) -> int:
    """Two operations per multiply-add and four neighbours per sample. How many samples an
    adaptive grid has, the shapes do not say: it counts as one."""
    return 2 * 4 * max(shapes.sampling_ratio, 1) ** 2 * math.prod(shapes.output)


def _backward_flops(shapes) -> int:
    """Scattering to the input as much as the forward; value and two derivatives for the rest."""
    samples = max(shapes.sampling_ratio, 1) ** 2 * math.prod(shapes.grad_output)
    return 2 * 4 * samples * (bool(shapes.need_input) + 3 * bool(shapes.need_offset))


register(
    "deform_roi_pool",
    reference,
    output_shape=output_shape,
    differentiable=("input", ("offset", "mask")),
    flops=_flops,
    backward_flops=_backward_flops,
    keeps_memory_format=("input",),
    autocast_keeps=("rois",),
)
