"""A convolution on the last feature map alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdcn.registry import MODELS


@MODELS.register_module()
class LastMapConv(BaseModule):
    """A 1x1 convolution with ReLU on the last map; the others pass unchanged.

    With a dilated conv5, a region proposal network reads conv4 and the RoI head fewer channels of
    conv5, as in `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et
    al., 2017).

    Args:
        in_channels: channels of the last map.
        out_channels: channels that it gets.
        init_cfg: see :class:`mmengine.model.BaseModule`; by default small normal weights.
    """

    def __init__(
        self, in_channels: int, out_channels: int, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg or dict(type="Normal", layer="Conv2d", std=0.01))
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(N, C, H, W)``, the last one with `in_channels` -> as many maps."""
        return *maps[:-1], torch.relu(self.conv(maps[-1]))
