"""What the RoI operators share on the Python side: checks, shapes, FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._arguments import check_dim, check_floating, check_like, check_pair, check_pixels, check_shape
from .deform_conv import _memory_format

MAX_SAMPLING_RATIO = 1024


def check_rois(input: Tensor, rois: Tensor, output_size, spatial_scale: float) -> None:
    """Raise ValueError for what no RoI operator takes.

    The dtype of ``rois`` is free: coordinates are often needed in float32 beside a low-precision
    ``input``. Their values (the batch indices) are checked by the kernels.
    """
    check_dim(input, "input", 4)
    check_floating(input, "input")
    check_dim(rois, "rois", 2)
    check_shape(rois, "rois", (rois.shape[0], 5))
    check_floating(rois, "rois")
    if rois.device != input.device:
        raise ValueError(f"rois: expected the device of input ({input.device}), got {rois.device}")
    check_pair(output_size, "output_size", 1)
    if not (math.isfinite(spatial_scale) and spatial_scale > 0):
        raise ValueError(f"spatial_scale: expected a positive number, got {spatial_scale}")
    check_pixels(*input.shape[2:])
    if input.shape[1] <= 0:
        raise ValueError(f"input: expected at least one channel, got shape {tuple(input.shape)}")


def check_optional(tensor: Tensor | None, name: str, input: Tensor, shape: tuple) -> None:
    """An optional tensor has the dtype and device of ``input`` and the given shape."""
    if tensor is not None:
        check_like(tensor, name, input, "input")
        check_shape(tensor, name, shape)


def fake_grad(input: Tensor, tensor: Tensor | None, need: bool) -> Tensor:
    """What a backward operator returns for a tensor that has the dtype of ``input``."""
    return input.new_empty(tensor.shape if need and tensor is not None else 0)


def fake_grad_input(input: Tensor, need: bool) -> Tensor:
    if not need:
        return input.new_empty(0)
    return torch.empty(
        input.shape,
        dtype=input.dtype,
        device=input.device,
        memory_format=_memory_format(input),
    )


def register_box_pool(name: str, check: Callable[..., int]) -> None:
    """Register a pooling over boxes of whole pixels, which only ``input`` has a gradient of.

    Args:
        check: takes the operator's arguments (input, rois, output_size, spatial_scale), raises
            ValueError for those that do not fit, and returns the number of output channels.
    """
    from ._registration import register

    backward_op = getattr(torch.ops.mmdcn, f"{name}_backward").default

    def fake(input, rois, output_size, spatial_scale):
        channels = check(input, rois, output_size, spatial_scale)
        return input.new_empty(rois.shape[0], channels, *output_size)

    def setup_context(ctx, inputs, output):
        input, rois, *ctx.options = inputs
        ctx.save_for_backward(input, rois)

    def backward(ctx, grad_output):
        deterministic = torch.are_deterministic_algorithms_enabled()
        grad = backward_op(grad_output, *ctx.saved_tensors, *ctx.options, deterministic)
        return grad, None, None, None

    register(
        name,
        fake=fake,
        backward_fake=lambda grad_output, input, *_: fake_grad_input(input, True),
        setup_context=setup_context,
        backward=backward,
        # How many pixels a bin has, the shapes do not say: it counts as one.
        flops=lambda *_, out_shape, **__: math.prod(out_shape),
        backward_flops=lambda grad_shape, *_, **__: math.prod(grad_shape),
        autocast_keeps=("rois",),
    )
