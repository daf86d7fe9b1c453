"""Module of position-sensitive RoI pooling."""

from __future__ import annotations

from torch import Tensor, nn

from ..ps_roi_pool import ps_roi_pool
from ..reference.arguments import IntPair, pair


class PSRoIPool(nn.Module):
    """Position-sensitive RoI pooling, see :func:`ps_roi_pool`.

    Args:
        output_size, spatial_scale: as in :func:`ps_roi_pool`.
    """

    def __init__(self, output_size: IntPair, spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = tuple(pair(output_size, "output_size"))
        self.spatial_scale = float(spatial_scale)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C * ph * pw, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
