"""The operators written with ``F.grid_sample``, as users without a kernel do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _positions(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device, dtype=torch.float32)


def _grid_sample(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Pixel positions (B, L, P) of maps (B, C, H, W) -> (B, C, L, P)."""
    height, width = maps.shape[2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def modulated_deform_conv2d(input, offset, mask, weight, bias, padding=1) -> Tensor:
    """Stride 1, one group: sample the columns of the whole image, then one matrix product."""
    batch, channels, height, width = input.shape
    taps = offset.shape[1] // 2
    kh, kw = weight.shape[2:]
    shift = offset.reshape(batch, taps, 2, height, width)
    rows = _positions(kh, input.device).repeat_interleave(kw) - padding
    cols = _positions(kw, input.device).repeat(kh) - padding
    y = shift[:, :, 0] + _positions(height, input.device)[:, None] + rows[:, None, None]
    x = shift[:, :, 1] + _positions(width, input.device) + cols[:, None, None]
    columns = _grid_sample(input, x.flatten(2), y.flatten(2))  # (N, C, taps, Ho Wo)
    if mask is not None:
        columns = columns * mask.flatten(2)[:, None]
    out = weight.flatten(1) @ columns.reshape(batch, channels * taps, height * width)
    return out.reshape(batch, -1, height, width) + bias[:, None, None]


def deform_conv2d(input, offset, weight, bias, padding=1) -> Tensor:
    return modulated_deform_conv2d(input, offset, None, weight, bias, padding)


def dcnv3(input, offset, mask, groups) -> Tensor:
    """3x3, stride 1, padding 1; the way of the official PyTorch version."""
    batch, height, width, channels = input.shape
    shift = offset.reshape(batch, height * width, groups, 9, 2)
    rows, cols = _positions(3, input.device).repeat(3), _positions(3, input.device)
    x = _positions(width, input.device).repeat(height)[:, None, None] - 1
    y = _positions(height, input.device).repeat_interleave(width)[:, None, None] - 1
    x = shift[..., 0] + x + cols.repeat_interleave(3)
    y = shift[..., 1] + y + rows

    def by_group(points: Tensor) -> Tensor:  # (N, L, G, P) -> (N G, L, P)
        return points.transpose(1, 2).reshape(batch * groups, height * width, 9)

    maps = input.permute(0, 3, 1, 2).reshape(batch * groups, channels // groups, height, width)
    samples = _grid_sample(maps, by_group(x), by_group(y))
    weights = by_group(mask.reshape(batch, height * width, groups, 9))
    out = (samples * weights[:, None]).sum(-1).reshape(batch, channels, height, width)
    return out.permute(0, 2, 3, 1).contiguous()


def dcnv4(input, offset_mask, groups) -> Tensor:
    parts = offset_mask.unflatten(-1, (groups, 27))
    return dcnv3(input, parts[..., :18].flatten(3), parts[..., 18:].flatten(3), groups)


class Formulation(nn.Module):
    """A formulation as a module of tensors, for converters."""

    def __init__(self, function, **options) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors, **self.options)
