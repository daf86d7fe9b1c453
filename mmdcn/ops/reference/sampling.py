"""Bilinear sampling with zero padding, shared by the reference operators."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 is computed in float64, everything else in float32."""
    return dtype if dtype == torch.float64 else torch.float32


def bilinear_sample(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample maps at fractional pixel positions; a neighbour outside the map counts as 0.

    A point with ``y <= -1``, ``y >= H`` (or x alike) or a non-finite coordinate gives 0 and has a
    zero gradient.

    Args:
        maps: ``(B, C, H, W)``.
        y, x: ``(B, L)``, in pixels; integers are pixel centres.

    Returns:
        ``(B, C, L)``.
    """
    batch, channels, height, width = maps.shape
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = y.where(inside, 0.0), x.where(inside, 0.0)
    top, left = y.detach().floor(), x.detach().floor()
    ly, lx = y - top, x - left
    pixels = maps.flatten(2)
    out = maps.new_zeros(batch, channels, y.shape[1])
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yi, xi = top.long() + down, left.long() + right
        valid = inside & (yi >= 0) & (yi < height) & (xi >= 0) & (xi < width)
        index = (yi * width + xi).where(valid, 0)
        value = pixels.gather(2, index[:, None].expand(-1, channels, -1))
        weight = (ly if down else 1 - ly) * (lx if right else 1 - lx)
        out = out + value.where(valid[:, None], 0.0) * weight[:, None]
    return out
