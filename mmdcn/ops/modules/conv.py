"""DCNv3 and DCNv4 as convolutions: channels first, any number of channels, any stride."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from ..dcnv3 import dcnv3
from ..dcnv4 import dcnv4
from ..reference.arguments import IntPair, check_divisor, pair
from .layers import build_act_layer, build_norm_layer

GROUP_CHANNELS = 16  # of InternImage's models up to XL


class _DeformableConv2d(nn.Module):
    """What both layers share: hyperparameters, and the projections of input and output."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        deform_groups: int | None = None,
        offset_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_divisor(groups, "groups", in_channels, "input channels")
        check_divisor(groups, "groups", out_channels, "output channels")
        if deform_groups is None:
            widths = range(1, GROUP_CHANNELS + 1)
            deform_groups = out_channels // max(w for w in widths if out_channels % w == 0)
        check_divisor(deform_groups, "deform_groups", out_channels, "output channels")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple(pair(kernel_size, "kernel_size"))
        self.stride = tuple(pair(stride, "stride"))
        self.padding = tuple(pair(padding, "padding"))
        self.dilation = tuple(pair(dilation, "dilation"))
        self.groups = groups
        self.deform_groups = deform_groups
        self.offset_scale = offset_scale
        # Attributes of nn.Conv2d that code around convolutions reads.
        self.transposed = False
        self.output_padding = (0, 0)
        self.taps = math.prod(self.kernel_size)
        self.input_proj = nn.Conv2d(in_channels, out_channels, 1, groups=groups)
        self.output_proj = nn.Conv2d(out_channels, out_channels, 1, groups=groups, bias=bias)

    def _depthwise_conv(self) -> nn.Conv2d:
        """Reads the window of the operator, so that its output has one pixel per output pixel."""
        return nn.Conv2d(
            self.in_channels,
            self.in_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            groups=self.in_channels,
        )

    def init_weights(self) -> None:
        """No deformation, taps that weigh the same, Xavier projections, zero biases."""
        for projection in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def _aggregate(self, x: Tensor, value: Tensor) -> Tensor:
        """Input ``(N, C, H, W)`` and value ``(N, H, W, O)`` -> ``(N, Ho, Wo, O)``."""
        raise NotImplementedError

    def _options(self) -> dict:
        return dict(
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.deform_groups,
            offset_scale=self.offset_scale,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, O, Ho, Wo)``, in the memory format of `x`."""
        memory_format = torch.channels_last
        if isinstance(x, Proxy) or x.is_contiguous():
            memory_format = torch.contiguous_format
        x = x.contiguous(memory_format=torch.channels_last)
        output = self._aggregate(x, self.input_proj(x).permute(0, 2, 3, 1))
        output = self.output_proj(output.permute(0, 3, 1, 2))
        return output.contiguous(memory_format=memory_format)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, deform_groups={self.deform_groups}, "
            f"bias={self.output_proj.bias is not None}"
        )


class DCNv3Conv2d(_DeformableConv2d):
    """A drop-in convolution that aggregates by :func:`mmdcn.ops.dcnv3`.

    A 1x1 convolution of the input gives the values that are sampled. A depth-wise convolution with
    the window of this layer gives a query per output pixel, and two linear layers turn the query
    into offsets and softmax weights. A second 1x1 convolution mixes the aggregated channels. Before
    training, the layer is a convolution whose taps all have the same weights.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias: As in
            :class:`torch.nn.Conv2d`.
        groups: Groups of the two 1x1 convolutions.
        deform_groups: The output channels are cut into this many groups with offsets and weights of
            their own. None means groups of 16 channels, or the most below 16 that is possible.
        offset_scale: Factor on the kernel's grid and the offsets.
        act_layer, norm_layer: As in :class:`mmdcn.ops.DCNv3`, after the depth-wise convolution.

    Raises:
        ValueError: `groups` or `deform_groups` does not divide the channels, or a layer name is
            unknown.
    """

    def __init__(self, *args, act_layer: str = "GELU", norm_layer: str = "LN", **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dw_conv = nn.Sequential(
            self._depthwise_conv(),
            build_norm_layer(self.in_channels, norm_layer, "channels_first", "channels_last"),
            build_act_layer(act_layer),
        )
        points = self.deform_groups * self.taps
        self.offset = nn.Linear(self.in_channels, 2 * points)
        self.mask = nn.Linear(self.in_channels, points)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for zero in (self.offset, self.mask):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def _aggregate(self, x: Tensor, value: Tensor) -> Tensor:
        query = self.dw_conv(x)
        offset, mask = self.offset(query), self.mask(query)
        return dcnv3(value, offset, mask, mask_softmax=True, **self._options())


class DCNv4Conv2d(_DeformableConv2d):
    """A drop-in convolution that aggregates by :func:`mmdcn.ops.dcnv4`.

    As :class:`DCNv3Conv2d`, with unbounded weights, which one linear layer predicts together with
    the offsets, straight from the depth-wise convolution. Arguments and errors as there, except for
    `act_layer` and `norm_layer`, which do not exist here. The weights of a new layer are not 0 as
    in :class:`mmdcn.ops.DCNv4`, which passes nothing on, but add up to 1.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.offset_mask_dw = self._depthwise_conv()
        self.offset_mask = nn.Linear(self.in_channels, 3 * self.deform_groups * self.taps)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.zeros_(self.offset_mask.weight)
        with torch.no_grad():
            groups = self.offset_mask.bias.unflatten(0, (self.deform_groups, 3 * self.taps))
            groups[:, : 2 * self.taps] = 0
            groups[:, 2 * self.taps :] = 1 / self.taps

    def _aggregate(self, x: Tensor, value: Tensor) -> Tensor:
        query = self.offset_mask_dw(x).permute(0, 2, 3, 1)
        return dcnv4(value, self.offset_mask(query), **self._options())
