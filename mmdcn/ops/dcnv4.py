"""DCNv4, the operator of FlashInternImage.

`Efficient Deformable ConvNets: Rethinking Dynamic and Sparse Operator for Vision Applications
<https://arxiv.org/abs/2401.06197>`_ (Xiong et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _extension
from . import reference
from ._arguments import check_dim, check_like, check_shape, pair
from .dcnv3 import check_window

_Pair = int | Sequence[int]


def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_size: _Pair = 3,
    stride: _Pair = 1,
    padding: _Pair = 1,
    dilation: _Pair = 1,
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
    if not _extension.use_native(input.device.type):
        return reference.dcnv4(
            input, offset_mask, kernel_size, stride, padding, dilation, groups, offset_scale,
            remove_center,
        )  # fmt: skip
    return torch.ops.mmdcn.dcnv4.default(
        input,
        offset_mask,
        pair(kernel_size, "kernel_size"),
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
        groups,
        offset_scale,
        remove_center,
    )


def check_dcnv4(
    input, offset_mask, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
) -> tuple[int, int, int]:
    """``(N, Ho, Wo)``; raises ValueError for arguments that do not fit."""
    size, taps = check_window(
        input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
    )
    check_like(offset_mask, "offset_mask", input, "input")
    check_dim(offset_mask, "offset_mask", 4)
    needed = 3 * groups * taps
    if offset_mask.shape[3] < needed:
        raise ValueError(
            f"offset_mask: expected at least {needed} channels (3 * groups * taps), "
            f"got {offset_mask.shape[3]}"
        )
    check_shape(offset_mask, "offset_mask", (*size, offset_mask.shape[3]))
    return size


def _fake(
    input, offset_mask, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
):
    size = check_dcnv4(
        input, offset_mask, kernel_size, stride, padding, dilation, groups, offset_scale,
        remove_center,
    )  # fmt: skip
    return input.new_empty(*size, input.shape[3])


def _backward_fake(grad_output, input, offset_mask, *options):
    need_input = options[-2]
    return (
        input.new_empty(input.shape if need_input else (0,)),
        offset_mask.new_empty(offset_mask.shape),
    )


def _setup_context(ctx, inputs, output):
    input, offset_mask, *ctx.options = inputs
    ctx.save_for_backward(input, offset_mask)


def _backward(ctx, grad_output):
    needs = ctx.needs_input_grad
    grads = torch.ops.mmdcn.dcnv4_backward(
        grad_output,
        *ctx.saved_tensors,
        *ctx.options,
        needs[0],
        torch.are_deterministic_algorithms_enabled(),
    )
    grads = (g if need else None for g, need in zip(grads, needs[:2], strict=True))
    return *grads, *[None] * len(ctx.options)


def _samples(input_shape, grid_shape, kernel_size, remove_center) -> int:
    """How many values are sampled: one per output pixel, channel and tap."""
    taps = kernel_size[0] * kernel_size[1] - bool(remove_center)
    return grid_shape[0] * grid_shape[1] * grid_shape[2] * input_shape[3] * taps


def _flops(
    input_shape, offset_mask_shape, kernel_size, stride, padding, dilation, groups, offset_scale,
    remove_center, *_, **__,
) -> int:  # fmt: skip
    """Two operations per multiply-add; a sample has four neighbours and its weight."""
    return 2 * 5 * _samples(input_shape, offset_mask_shape, kernel_size, remove_center)


def _backward_flops(
    grad_shape, input_shape, offset_mask_shape, kernel_size, stride, padding, dilation, groups,
    offset_scale, remove_center, need_input, *_, **__,
) -> int:  # fmt: skip
    """Four dot products for offsets and weights, and four scaled rows added to the input's."""
    samples = _samples(input_shape, offset_mask_shape, kernel_size, remove_center)
    return 2 * (8 if need_input else 4) * samples


if _extension.schemas_available():
    from ._registration import register

    register(
        "dcnv4",
        fake=_fake,
        backward_fake=_backward_fake,
        setup_context=_setup_context,
        backward=_backward,
        flops=_flops,
        backward_flops=_backward_flops,
    )
