"""Reference of flow_warp."""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import (
    IntPair,
    check_dim,
    check_floating,
    check_like,
    check_pair,
    check_pixels,
    check_shape,
    pair,
)
from .autocast import cast_once
from .sampling import bilinear_sample, compute_dtype

__all__ = ["flow_warp"]


@cast_once
def flow_warp(input: Tensor, offset: Tensor, unit: IntPair = 1) -> Tensor:
    """See :func:`mmdcn.ops.flow_warp`."""
    unit_y, unit_x = unit = pair(unit, "unit")
    shape = batch, _, height, width = output_shape(input, offset, unit)
    dtype = compute_dtype(input.dtype)
    offset = offset.to(dtype)
    y = offset[:, 0] * unit_y + torch.arange(height, device=input.device, dtype=dtype)[:, None]
    x = offset[:, 1] * unit_x + torch.arange(width, device=input.device, dtype=dtype)
    pixels = height * width
    samples = bilinear_sample(input.to(dtype), y.reshape(batch, pixels), x.reshape(batch, pixels))
    return samples.reshape(shape).to(input.dtype)


def output_shape(input, offset, unit) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    check_dim(input, "input", 4)
    check_floating(input, "input")
    check_like(offset, "offset", input, "input")
    check_pair(unit, "unit", 1)
    batch, channels, height, width = input.shape
    check_pixels(height, width)
    check_shape(offset, "offset", (batch, 2, height, width))
    return batch, channels, height, width
