"""DCNv4, the operator of FlashInternImage.

`Efficient Deformable ConvNets: Rethinking Dynamic and Sparse Operator for Vision Applications
<https://arxiv.org/abs/2401.06197>`_ (Xiong et al., 2024).
"""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.dcnv4 import dcnv4 as reference
from .reference.dcnv4 import output_shape


def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> Tensor:
    """The aggregation of :func:`mmdcn.ops.dcnv3` with unbounded weights: no softmax anywhere.

    Offsets and weights come in one tensor, so that a memory-efficient layer makes both with one
    projection. Any number of channels a group, kernel size, stride and batch size is accepted.

    Args:
        input: ``(N, H, W, C)``.
        offset_mask: ``(N, Ho, Wo, Cm)`` with ``Cm >= groups * P * 3``; the surplus is ignored and
            has a zero gradient. Group ``g`` owns channels ``[g P 3, (g + 1) P 3)``: first ``P``
            pairs of a horizontal and a vertical offset, then ``P`` weights.
        kernel_size, stride, padding, dilation, groups, offset_scale, remove_center: as in
            :func:`mmdcn.ops.dcnv3`.

    Returns:
        ``(N, Ho, Wo, C)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value.
    """
    return call(
        "dcnv4", reference, input, offset_mask, kernel_size, stride, padding, dilation, groups,
        offset_scale, remove_center,
    )  # fmt: skip


def _samples(shapes) -> int:
    """How many values are sampled: one per output pixel, channel and tap."""
    taps = math.prod(shapes.kernel_size) - bool(shapes.remove_center)
    return math.prod(shapes.offset_mask[:3]) * shapes.input[3] * taps


def _flops(shapes) -> int:
    """Two operations per multiply-add; a sample has four neighbours and its weight."""
    return 2 * 5 * _samples(shapes)


def _backward_flops(shapes) -> int:
    """Four dot products for offsets and weights, and four scaled rows added to the input's."""
    return 2 * (8 if shapes.need_input else 4) * _samples(shapes)


register(
    "dcnv4",
    reference,
    output_shape=output_shape,
    differentiable=("input", "offset_mask"),
    flops=_flops,
    backward_flops=_backward_flops,
)
