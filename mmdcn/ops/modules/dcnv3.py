"""Module of DCNv3: `InternImage <https://arxiv.org/abs/2211.05778>`_ (Wang et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dcnv3 import dcnv3
from .layers import ToChannelsFirst, build_act_layer, build_norm_layer, check_maps, linear


class DCNv3(nn.Module):
    """Channels-last deformable layer that predicts its own offsets and softmax weights.

    A depth-wise convolution of the input gives a query, two linear layers turn the query into
    offsets and weights, and :func:`mmdcn.ops.dcnv3` aggregates the projected input with them.
    State-dict keys equal those of the original implementation.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the square kernel.
        dw_kernel_size: Side of the depth-wise kernel; None means `kernel_size`.
        stride, pad, dilation: As in :func:`mmdcn.ops.dcnv3`. The offsets have the size of the
            input, so the output must have it too: ``stride`` is 1 for all published models.
        group: Groups of channels with offsets of their own; divides `channels`.
        offset_scale: Factor on the kernel's grid and the offsets.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``, after the depth-wise convolution.
        norm_layer: ``"LN"`` or ``"BN"``, before that activation.
        center_feature_scale: Mix the output with the projected input by a gate per group.
        remove_center: Drop the kernel's middle tap.

    Raises:
        ValueError: `channels` is not divisible by `group`, or a layer name is unknown.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        center_feature_scale: bool = False,
        remove_center: bool = False,
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
        self.center_feature_scale = center_feature_scale
        self.remove_center = remove_center
        points = kernel_size**2 - remove_center

        dw_kernel_size = dw_kernel_size or kernel_size
        self.to_channels_first = ToChannelsFirst()
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels,
                channels,
                dw_kernel_size,
                padding=(dw_kernel_size - 1) // 2,
                groups=channels,
            ),
            build_norm_layer(channels, norm_layer, "channels_first", "channels_last"),
            build_act_layer(act_layer),
        )
        self.offset = nn.Linear(channels, group * points * 2)
        self.mask = nn.Linear(channels, group * points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.empty(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.empty(group))
        self.init_weights()

    def init_weights(self) -> None:
        """Zero offsets, equal weights, Xavier projections, gates at one half."""
        for zero in (self.offset, self.mask):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)
        for projection in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        if self.center_feature_scale:
            nn.init.zeros_(self.center_feature_scale_proj_weight)
            nn.init.zeros_(self.center_feature_scale_proj_bias)

    def forward(self, input: Tensor) -> Tensor:
        """``(N, H, W, C)`` -> ``(N, Ho, Wo, C)``; raises ValueError for another shape."""
        check_maps(input, self.channels)
        value = linear(self.input_proj, input)
        query = self.dw_conv(self.to_channels_first(input))
        output = dcnv3(
            value,
            linear(self.offset, query),
            linear(self.mask, query),
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.pad,
            dilation=self.dilation,
            groups=self.group,
            offset_scale=self.offset_scale,
            remove_center=self.remove_center,
            mask_softmax=True,
        )
        if self.center_feature_scale:
            gate = F.linear(
                query, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            output = mix_groups(output, value, gate.sigmoid())
        return linear(self.output_proj, output)


def mix_groups(output: Tensor, value: Tensor, gate: Tensor) -> Tensor:
    """``output (1 - gate) + value gate``, with one gate per group of channels.

    Args:
        output, value: ``(..., C)``.
        gate: ``(..., G)``, where G divides C.
    """
    groups = gate.shape[-1]
    gate = gate.unsqueeze(-1).type_as(output)
    mixed = torch.lerp(output.unflatten(-1, (groups, -1)), value.unflatten(-1, (groups, -1)), gate)
    return mixed.flatten(-2)
