"""Module of DCNv4: `Efficient Deformable ConvNets <https://arxiv.org/abs/2401.06197>`_
(Xiong et al., 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F

from ..dcnv4 import dcnv4
from .dcnv3 import mix_groups
from .layers import check_maps, linear


class DCNv4(nn.Module):
    """Channels-last deformable layer with unbounded weights, predicted together with the offsets.

    State-dict keys equal those of the original implementation. There is no rule on the channels
    per group beyond divisibility.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the square kernel.
        stride, pad, dilation: As in :func:`mmdcn.ops.dcnv4`; the output must have the size of the
            input, which has one set of offsets per pixel.
        group: Groups of channels with offsets of their own; divides `channels`.
        offset_scale: Factor on the kernel's grid and the offsets.
        dw_kernel_size: Side of a depth-wise convolution before the layer that predicts offsets
            and weights; None for no such convolution.
        center_feature_scale: Mix the output with the projected input by a gate per group.
        remove_center: Drop the kernel's middle tap.
        output_bias: Whether the output projection has a bias.
        without_pointwise: Leave out the projections of input and output.

    Raises:
        ValueError: `channels` is not divisible by `group`.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        dw_kernel_size: int | None = None,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        output_bias: bool = True,
        without_pointwise: bool = False,
    ) -> None:
        super().__init__()
        if channels % group:
            raise ValueError(f"channels: expected a multiple of group ({group}), got {channels}")
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.pad = pad
        self.dilation = dilation
        self.group = group
        self.offset_scale = offset_scale
        self.dw_kernel_size = dw_kernel_size
        self.center_feature_scale = center_feature_scale
        self.remove_center = remove_center
        self.without_pointwise = without_pointwise

        used = group * (kernel_size**2 - remove_center) * 3
        self.offset_mask = nn.Linear(channels, math.ceil(used / 8) * 8)  # the rest is ignored
        if dw_kernel_size is not None:
            self.offset_mask_dw = nn.Conv2d(
                channels,
                channels,
                dw_kernel_size,
                padding=(dw_kernel_size - 1) // 2,
                groups=channels,
            )
        if not without_pointwise:
            self.value_proj = nn.Linear(channels, channels)
            self.output_proj = nn.Linear(channels, channels, bias=output_bias)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.empty(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.empty(group))
        self.init_weights()

    def init_weights(self) -> None:
        """Zero offsets and weights, Xavier projections, gates at one half."""
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.bias)
        if not self.without_pointwise:
            for projection in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(projection.weight)
                if projection.bias is not None:
                    nn.init.zeros_(projection.bias)
        if self.center_feature_scale:
            nn.init.zeros_(self.center_feature_scale_proj_weight)
            nn.init.zeros_(self.center_feature_scale_proj_bias)

    def forward(self, input: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """``(N, H, W, C)`` -> ``(N, Ho, Wo, C)``, or ``(N, L, C)`` -> ``(N, Lo, C)``.

        Args:
            input: The feature map.
            shape: ``(H, W)`` for a flattened map; None means that it is square.

        Raises:
            ValueError: `shape` does not fit the length of a flattened map, or `input` is none.
        """
        flattened = not isinstance(input, Proxy) and input.dim() == 3
        if flattened:
            input = input.unflatten(1, self._map_shape(input.shape[1], shape))
        check_maps(input, self.channels)
        value = input if self.without_pointwise else linear(self.value_proj, input)
        query = input
        if self.dw_kernel_size is not None:
            query = self.offset_mask_dw(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        output = dcnv4(
            value,
            linear(self.offset_mask, query),
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.pad,
            dilation=self.dilation,
            groups=self.group,
            offset_scale=self.offset_scale,
            remove_center=self.remove_center,
        )
        if self.center_feature_scale:
            gate = F.linear(
                output, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            output = mix_groups(output, value, gate.sigmoid())
        if not self.without_pointwise:
            output = linear(self.output_proj, output)
        return output.flatten(1, 2) if flattened else output

    @staticmethod
    def _map_shape(length: int, shape: tuple[int, int] | None) -> tuple[int, int]:
        height, width = shape if shape is not None else (math.isqrt(length),) * 2
        if height * width != length:
            raise ValueError(
                f"shape: expected (H, W) with H * W = {length}, the length of the input, got "
                f"{shape if shape is not None else 'None, which means a square map'}"
            )
        return height, width
