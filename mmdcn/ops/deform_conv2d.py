"""Deformable convolution v1 and v2.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017) and
`Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019).
"""

from __future__ import annotations

import math

from torch import Tensor

from ._registration import call, register
from .reference.arguments import IntPair
from .reference.deform_conv2d import optionally_modulated, output_shape


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution (DCNv1): each kernel tap samples at a learnt offset.

    Samples are interpolated bilinearly, with zeros outside of the input. Where an offset is not
    finite the sample is 0. All tensors have one device and one dtype (float64, float32, bfloat16,
    float16; the low-precision ones are accumulated in float32, and bfloat16 samples may be rounded
    before they are multiplied), or any mix of them under autocast.

    Args:
        input: ``(N, C, H, W)``.
        offset: ``(N, deform_groups * 2 * kh * kw, Ho, Wo)`` in input pixels. Channel
            ``2 (d kh kw + k)`` is the vertical, the next one the horizontal offset of tap
            ``k = i kw + j`` in deformable group ``d``.
        weight: ``(O, C / groups, kh, kw)``.
        bias: ``(O,)`` or None.
        stride, padding, dilation: an integer or a pair (vertical, horizontal).
        groups: groups of the convolution.
        deform_groups: the channels are cut into this many groups with offsets of their own.

    Returns:
        ``(N, O, Ho, Wo)``, in the memory format of ``input``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value.
    """
    return call(
        "deform_conv2d", optionally_modulated, input, offset, None, weight, bias, stride, padding,
        dilation, groups, deform_groups,
    )  # fmt: skip


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Modulated deformable convolution (DCNv2): each sample is also scaled by a learnt mask.

    Args:
        mask: ``(N, deform_groups * kh * kw, Ho, Wo)``, the factor of each sample (usually a
            sigmoid, applied by the caller).

    The other arguments, the result and the errors are those of :func:`deform_conv2d`.
    """
    return call(
        "deform_conv2d", optionally_modulated, input, offset, mask, weight, bias, stride, padding,
        dilation, groups, deform_groups,
    )  # fmt: skip


def _multiply_adds(shapes, output) -> tuple[int, int]:
    """Multiply-adds of the matrix product, and those of the samples."""
    batch, out_channels, out_h, out_w = output
    pixels, taps = batch * out_h * out_w, math.prod(shapes.weight[2:])
    product = pixels * out_channels * shapes.weight[1] * taps
    # A sample has four neighbours, and its factor when modulated.
    return product, pixels * shapes.input[1] * taps * (4 if shapes.mask is None else 5)


def _flops(shapes) -> int:
    """Two operations per multiply-add."""
    return 2 * sum(_multiply_adds(shapes, shapes.output))


def _backward_flops(shapes) -> int:
    """Columns recomputed for the weight, dot products for the offsets, scattering to the input."""
    product, sampling = _multiply_adds(shapes, shapes.grad_output)
    needs = [bool(n) for n in (shapes.need_input, shapes.need_offset, shapes.need_weight)]
    return 2 * (product * (any(needs[:2]) + needs[2]) + sampling * sum(needs))


register(
    "deform_conv2d",
    optionally_modulated,
    output_shape=output_shape,
    differentiable=("input", ("offset", "mask"), ("weight", "bias")),
    shared=("weight", "bias"),
    flops=_flops,
    backward_flops=_backward_flops,
    keeps_memory_format=("output", "input"),
    gradient_shapes={"bias": lambda given: given.weight.shape[:1]},
)
