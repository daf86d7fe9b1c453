"""Module of warping by a flow."""

from __future__ import annotations

from torch import Tensor, nn

from ..flow_warp import flow_warp
from ..reference.arguments import IntPair, pair


class FlowWarp(nn.Module):
    """Warping of images by a flow, see :func:`flow_warp`.

    Args:
        unit: as in :func:`flow_warp`.
    """

    def __init__(self, unit: IntPair = 1) -> None:
        super().__init__()
        self.unit = tuple(pair(unit, "unit"))

    def forward(self, input: Tensor, offset: Tensor) -> Tensor:
        """``(N, C, H, W)`` and offsets -> ``(N, C, H, W)``."""
        return flow_warp(input, offset, self.unit)

    def extra_repr(self) -> str:
        return f"unit={self.unit}"
