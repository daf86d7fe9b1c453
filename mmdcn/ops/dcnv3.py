"""DCNv3, the operator of InternImage.

`InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions
<https://arxiv.org/abs/2211.05778>`_ (Wang et al., 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _extension
from . import reference
from ._arguments import (
    check_dim,
    check_divisor,
    check_floating,
    check_like,
    check_pair,
    check_pixels,
    check_shape,
    conv_out_size,
    pair,
)

_Pair = int | Sequence[int]


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: _Pair = 3,
    stride: _Pair = 1,
    padding: _Pair = 1,
    dilation: _Pair = 1,
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
    if not _extension.use_native(input.device.type):
        return reference.dcnv3(
            input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale,
            remove_center, mask_softmax,
        )  # fmt: skip
    return torch.ops.mmdcn.dcnv3.default(
        input,
        offset,
        mask,
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
        groups,
        offset_scale,
        remove_center,
        mask_softmax,
    )


def check_window(
    input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
) -> tuple[tuple[int, int, int], int]:
    """``(N, Ho, Wo)`` and the number of taps, for dcnv3 and dcnv4; raises ValueError."""
    check_dim(input, "input", 4)
    check_floating(input, "input")
    check_pair(kernel_size, "kernel_size", 1)
    check_pair(stride, "stride", 1)
    check_pair(padding, "padding", 0)
    check_pair(dilation, "dilation", 1)
    if not math.isfinite(offset_scale):
        raise ValueError(f"offset_scale: expected a finite number, got {offset_scale}")
    kh, kw = kernel_size
    if remove_center and (kh % 2 == 0 or kw % 2 == 0 or kh * kw == 1):
        raise ValueError(
            "remove_center: expected an odd kernel_size of more than one tap, "
            f"got {tuple(kernel_size)}"
        )
    batch, height, width, channels = input.shape
    check_divisor(groups, "groups", channels, "input channels")
    check_pixels(height, width)
    out_h = conv_out_size(height, kh, stride[0], padding[0], dilation[0])
    out_w = conv_out_size(width, kw, stride[1], padding[1], dilation[1])
    return (batch, out_h, out_w), kh * kw - bool(remove_center)


def check_dcnv3(
    input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
) -> tuple[int, int, int]:
    """``(N, Ho, Wo)``; raises ValueError for arguments that do not fit."""
    size, taps = check_window(
        input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
    )
    for tensor, name, per_tap in ((offset, "offset", 2), (mask, "mask", 1)):
        check_like(tensor, name, input, "input")
        check_shape(tensor, name, (*size, per_tap * groups * taps))
    return size


def _fake(
    input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale,
    remove_center, mask_softmax,
):  # fmt: skip
    size = check_dcnv3(
        input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale,
        remove_center,
    )  # fmt: skip
    return input.new_empty(*size, input.shape[3])


def _backward_fake(grad_output, input, offset, mask, *options):
    need_input = options[-2]
    return (
        input.new_empty(input.shape if need_input else (0,)),
        offset.new_empty(offset.shape),
        mask.new_empty(mask.shape),
    )


def _setup_context(ctx, inputs, output):
    input, offset, mask, *ctx.options = inputs
    ctx.save_for_backward(input, offset, mask)


def _backward(ctx, grad_output):
    needs = ctx.needs_input_grad
    grads = torch.ops.mmdcn.dcnv3_backward(
        grad_output,
        *ctx.saved_tensors,
        *ctx.options,
        needs[0],
        torch.are_deterministic_algorithms_enabled(),
    )
    grads = (g if need else None for g, need in zip(grads, needs[:3], strict=True))
    return *grads, *[None] * len(ctx.options)


def samples(mask_shape, input_shape, groups) -> int:
    """How many values are sampled: one per tap weight and channel of its group."""
    return math.prod(mask_shape) * (input_shape[3] // groups)


def _flops(
    input_shape, offset_shape, mask_shape, kernel_size, stride, padding, dilation, groups, *_, **__
) -> int:  # fmt: skip
    """Two operations per multiply-add; a sample has four neighbours and its weight."""
    return 2 * 5 * samples(mask_shape, input_shape, groups)


def _backward_flops(
    grad_shape, input_shape, offset_shape, mask_shape, kernel_size, stride, padding, dilation,
    groups, offset_scale, remove_center, mask_softmax, need_input, *_, **__,
) -> int:  # fmt: skip
    """Four dot products for offsets and weights, and four scaled rows added to the input's."""
    return 2 * (8 if need_input else 4) * samples(mask_shape, input_shape, groups)


if _extension.schemas_available():
    from ._registration import register

    register(
        "dcnv3",
        fake=_fake,
        backward_fake=_backward_fake,
        setup_context=_setup_context,
        backward=_backward,
        flops=_flops,
        backward_flops=_backward_flops,
    )
