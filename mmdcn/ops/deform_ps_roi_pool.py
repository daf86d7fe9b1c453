"""Deformable position-sensitive RoI pooling.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017, section
2.2), for R-FCN; with a mask, `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et
al., 2019).
"""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.deform_ps_roi_pool import default_channels, output_shape
from .reference.deform_ps_roi_pool import deform_ps_roi_pool as reference


def deform_ps_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: IntPair = 7,
    output_channels: int | None = None,
    group_size: int = 7,
    part_size: IntPair | None = None,
    sample_per_part: int = 4,
    spatial_scale: float = 1.0,
    trans_std: float = 0.1,
) -> Tensor:
    r"""Position-sensitive pooling of regions of interest (RoIs) into bins that a learnt offset
    may shift.

    A RoI is covered by ``group_size x group_size`` cells. A bin of output channel ``c`` whose
    place is in cell ``(gh, gw)`` reads input channel ``(c * group_size + gh) * group_size + gw``:
    it is the mean of bilinear samples on an even grid that starts at the bin's corner, scaled by
    its mask. Corners of a RoI are rounded, halves away from zero, and the far one belongs to the
    RoI, whose size is at least 0.1 pixels of the map.

    A sample further than half a pixel outside the map does not count, others are clamped into it;
    a bin without samples is 0. A bin with an offset that is not finite, and all bins of a RoI with
    a coordinate that is not finite, pool to 0 and have a zero gradient. There is no gradient for
    ``rois``.

    Args:
        input: ``(N, output_channels * group_size ** 2, H, W)``; float64, float32, bfloat16 or
            float16 (the low-precision ones are accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        offset: ``(R, 2 * classes, part_h, part_w)`` or None. Channel ``2 k`` shifts bins of class
            ``k`` horizontally, the next one vertically, in units of ``trans_std`` times the width
            or height of the RoI. The output channels are cut into ``classes`` equal runs.
        mask: ``(R, classes, part_h, part_w)`` or None, the factor of each bin.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        output_channels: by default as many as ``input`` has for ``group_size``.
        group_size: cells per RoI along each axis.
        part_size: parts of a RoI with offsets and masks of their own, an integer or a pair;
            ``output_size`` by default.
        sample_per_part: samples per bin along each axis.
        spatial_scale: pixels of ``input`` per pixel of the image.
        trans_std: scale of the offsets.

    Returns:
        ``(R, output_channels, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    if output_channels is None:
        output_channels = default_channels(input, group_size)
    return call(
        "deform_ps_roi_pool", reference, input, rois, offset, mask, output_size, output_channels,
        group_size, output_size if part_size is None else part_size, sample_per_part,
        spatial_scale, trans_std,
    )  # fmt: skip


def _flops(shapes) -> int:
    """Two operations per multiply-add and four neighbours per sample."""
    return 2 * 4 * shapes.sample_per_part**2 * math.prod(shapes.output)


def _backward_flops(shapes) -> int:
    """Scattering to the input as much as the forward; value and two derivatives for the rest."""
    samples = shapes.sample_per_part**2 * math.prod(shapes.grad_output)
    return 2 * 4 * samples * (bool(shapes.need_input) + 3 * bool(shapes.need_offset))


register(
    "deform_ps_roi_pool",
    reference,
    output_shape=output_shape,
    differentiable=("input", ("offset", "mask")),
    flops=_flops,
    backward_flops=_backward_flops,
    keeps_memory_format=("input",),
    autocast_keeps=("rois",),
)
