"""Average RoI pooling: function and module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _extension
from . import reference
from ._arguments import pair
from ._rois import check_rois, register_box_pool

_Pair = int | Sequence[int]


def roi_avg_pool(
    input: Tensor, rois: Tensor, output_size: _Pair, spatial_scale: float = 1.0
) -> Tensor:
    r"""The mean over each bin of a region of interest (RoI): the regular RoI pooling of
    `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_, with the whole-pixel
    bins of `Fast R-CNN <https://arxiv.org/abs/1504.08083>`_.

    Corners are ``round(v * spatial_scale)``, halves away from zero, and the far one belongs to the
    RoI, which is at least one pixel large. Bin ``i`` of ``ph`` covers rows ``floor(i h / ph)`` up
    to ``ceil((i + 1) h / ph)`` of a RoI of height ``h``, columns alike, as far as they are inside
    the map. A bin without a pixel is 0, as is a RoI with a coordinate that is not finite. There is
    no gradient for ``rois``.

    Args:
        input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16 (the low-precision ones are
            accumulated in float32).
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
        return reference.roi_avg_pool(input, rois, output_size, spatial_scale)
    return torch.ops.mmdcn.roi_avg_pool.default(
        input, rois, pair(output_size, "output_size"), spatial_scale
    )


def _check_arguments(input, rois, output_size, spatial_scale) -> int:
    check_rois(input, rois, output_size, spatial_scale)
    return input.shape[1]


if _extension.schemas_available():
    register_box_pool("roi_avg_pool", _check_arguments)


class RoIAvgPool(nn.Module):
    """Average RoI pooling, see :func:`roi_avg_pool`.

    Args:
        output_size, spatial_scale: as in :func:`roi_avg_pool`.
    """

    def __init__(self, output_size: _Pair, spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = tuple(pair(output_size, "output_size"))
        self.spatial_scale = float(spatial_scale)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        return roi_avg_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
