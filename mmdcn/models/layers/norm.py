"""Norms for OpenMMLab configs."""

from torch import Tensor, nn

from mmdcn.registry import MODELS


@MODELS.register_module(name="LN2d")
class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of ``(N, C, H, W)``, as ``norm_cfg=dict(type='mmdcn.LN2d')``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
