"""Position-sensitive RoI pooling: function and module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _extension
from . import reference
from ._arguments import pair
from ._rois import check_rois, register_box_pool

_Pair = int | Sequence[int]


def ps_roi_pool(
    input: Tensor, rois: Tensor, output_size: _Pair, spatial_scale: float = 1.0
) -> Tensor:
    r"""Position-sensitive pooling of regions of interest (RoIs): every bin averages channels of
    its own. `R-FCN <https://arxiv.org/abs/1605.06409>`_ (Dai et al., 2016).

    Bin ``(i, j)`` of class ``c`` is the mean of channel ``(c * ph + i) * pw + j`` over the bin's
    pixels. Corners are ``round(v * spatial_scale)``, halves away from zero; the far one does not
    belong to the RoI, which is at least one pixel large. Bin ``i`` covers rows ``floor(i h / ph)``
    up to ``ceil((i + 1) h / ph)`` of a RoI of height ``h``, columns alike, clipped to
    ``[0, H - 1)`` and ``[0, W - 1)``: the last row and column of the map are never read. A bin
    without a pixel is 0, as is a RoI with a coordinate that is not finite. There is no gradient
    for ``rois``.

    These are the numbers of ``torchvision.ops.ps_roi_pool``, except for two flaws of its version
    0.29: rounding adds a pixel to the last bin for a few sizes (57 pixels in 7 bins), and the
    gradient reaches the last row and column, on which the output does not depend.

    Args:
        input: ``(N, C * ph * pw, H, W)``; float64, float32, bfloat16 or float16 (the low-precision
            ones are accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        spatial_scale: pixels of ``input`` per pixel of the image.

    Returns:
        ``(R, C, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    if not _extension.use_native(input.device.type):
        return reference.ps_roi_pool(input, rois, output_size, spatial_scale)
    return torch.ops.mmdcn.ps_roi_pool.default(
        input, rois, pair(output_size, "output_size"), spatial_scale
    )


def check_arguments(input, rois, output_size, spatial_scale) -> int:
    """Number of output channels; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    ph, pw = output_size
    if input.shape[1] % (ph * pw):
        raise ValueError(
            f"input: expected channels that output_size {ph}x{pw} divides, "
            f"got shape {tuple(input.shape)}"
        )
    return input.shape[1] // (ph * pw)


if _extension.schemas_available():
    register_box_pool("ps_roi_pool", check_arguments)


class PSRoIPool(nn.Module):
    """Position-sensitive RoI pooling, see :func:`ps_roi_pool`.

    Args:
        output_size, spatial_scale: as in :func:`ps_roi_pool`.
    """

    def __init__(self, output_size: _Pair, spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = tuple(pair(output_size, "output_size"))
        self.spatial_scale = float(spatial_scale)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C * ph * pw, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
