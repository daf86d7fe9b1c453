"""DCNv3, the operator of InternImage.

`InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions
<https://arxiv.org/abs/2211.05778>`_ (Wang et al., 2023).
"""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.dcnv3 import dcnv3 as reference
from .reference.dcnv3 import output_shape


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    mask_softmax: bool = False,
) -> Tensor:
    """Channels-last deformable aggregation: a weighted sum of the taps' samples, by groups.

    ``offset_scale`` stretches the regular grid around the centre of the (dilated) kernel, together
    with the offsets. Samples are interpolated bilinearly, with zeros outside of the input. Taps run
    with **width outer, height inner**. Where an offset is not finite the sample is 0. All tensors
    have one device and one dtype (float64, float32, bfloat16, float16; the low-precision ones are
    accumulated in float32), or any mix of them under autocast.

    Args:
        input: ``(N, H, W, C)``.
        offset: ``(N, Ho, Wo, groups * P * 2)`` in input pixels, (horizontal, vertical) pairs, with
            ``P = kh * kw`` (one less with ``remove_center``).
        mask: ``(N, Ho, Wo, groups * P)``, the weight of each sample.
        kernel_size, stride, padding, dilation: an integer or a pair (vertical, horizontal).
        groups: the channels are cut into this many groups with offsets and weights of their own.
        offset_scale: factor of the regular grid and of the offsets.
        remove_center: leave the middle tap out; odd kernels only.
        mask_softmax: take the softmax of ``mask`` over the P taps of a group first. Faster than
            a softmax beforehand.

    Returns:
        ``(N, Ho, Wo, C)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value.
    """
    return call(
        "dcnv3", reference, input, offset, mask, kernel_size, stride, padding, dilation, groups,
        offset_scale, remove_center, mask_softmax,
    )  # fmt: skip


def _samples(shapes) -> int:
    """How many values are sampled: one per tap weight and channel of its group."""
    return math.prod(shapes.mask) * (shapes.input[3] // shapes.groups)


def _flops(shapes) -> int:
    """Two operations per multiply-add; a sample has four neighbours and its weight."""
    return 2 * 5 * _samples(shapes)


def _backward_flops(shapes) -> int:
    """Four dot products for offsets and weights, and four scaled rows added to the input's."""
    return 2 * (8 if shapes.need_input else 4) * _samples(shapes)


register(
    "dcnv3",
    reference,
    output_shape=output_shape,
    differentiable=("input", "offset", "mask"),
    flops=_flops,
    backward_flops=_backward_flops,
)
