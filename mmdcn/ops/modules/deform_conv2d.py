"""Modules of deformable convolution v1 and v2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..deform_conv2d import deform_conv2d, modulated_deform_conv2d
from ..reference.arguments import IntPair, check_divisor, pair


class _DeformConvBase(nn.Module):
    """Hyperparameters and weight shared by the four modules."""

    _version = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
        im2col_step: int = 32,
    ) -> None:
        super().__init__()
        check_divisor(groups, "groups", in_channels, "input channels")
        check_divisor(groups, "groups", out_channels, "output channels")
        check_divisor(deform_groups, "deform_groups", in_channels, "input channels")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple(pair(kernel_size, "kernel_size"))
        self.stride = tuple(pair(stride, "stride"))
        self.padding = tuple(pair(padding, "padding"))
        self.dilation = tuple(pair(dilation, "dilation"))
        self.groups = groups
        self.deform_groups = deform_groups
        self.im2col_step = im2col_step
        # Attributes of nn.Conv2d that code around convolutions reads.
        self.transposed = False
        self.output_padding = (0, 0)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        self.init_weights()

    def init_weights(self) -> None:
        """Uniform in ±1 / sqrt(fan in) and a zero bias."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _options(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups, self.deform_groups

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, deform_groups={self.deform_groups}, "
            f"bias={self.bias is not None}"
        )


class DeformConv2d(_DeformConvBase):
    """Deformable convolution whose offsets come with the call, see :func:`deform_conv2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in
            :class:`torch.nn.Conv2d`; no bias by default.
        deform_groups: groups of channels with offsets of their own.
        im2col_step: accepted for compatibility with mmcv, without effect.
    """

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """``(N, C, H, W)`` and offsets -> ``(N, O, Ho, Wo)``."""
        return deform_conv2d(x, offset, self.weight, self.bias, *self._options())


class ModulatedDeformConv2d(_DeformConvBase):
    """Modulated deformable convolution, see :func:`modulated_deform_conv2d`.

    Arguments as in :class:`DeformConv2d`, with a bias by default.
    """

    def __init__(self, *args, bias: bool = True, **kwargs) -> None:
        super().__init__(*args, bias=bias, **kwargs)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """``(N, C, H, W)``, offsets and mask -> ``(N, O, Ho, Wo)``."""
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, *self._options())


class _OffsetBranch:
    """A plain convolution ``conv_offset``, zero at the start, that predicts what deforms."""

    def _add_conv_offset(self, per_tap: int) -> None:
        self.conv_offset = nn.Conv2d(
            self.in_channels,
            self.deform_groups * per_tap * math.prod(self.kernel_size),
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        if hasattr(self, "conv_offset"):  # not yet in the base class's constructor
            nn.init.zeros_(self.conv_offset.weight)
            nn.init.zeros_(self.conv_offset.bias)


class DeformConv2dPack(_OffsetBranch, DeformConv2d):
    """A drop-in convolution that learns its own offsets (DCNv1), arguments as in
    :class:`DeformConv2d`. State-dict keys equal those of mmcv's module of this name."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._add_conv_offset(2)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, O, Ho, Wo)``."""
        return super().forward(x, self.conv_offset(x))


class ModulatedDeformConv2dPack(_OffsetBranch, ModulatedDeformConv2d):
    """A drop-in convolution that learns its own offsets and masks (DCNv2), arguments as in
    :class:`ModulatedDeformConv2d`. State-dict keys equal those of mmcv's module of this name.

    Of the channels of ``conv_offset`` the first two thirds are offsets, the last third are mask
    logits, turned into factors by a sigmoid.

    Args:
        mask_scale: Factor on the masks, which begin at half of it. 1 is that of the paper and of
            mmcv; with 2, a new layer does what a convolution of its weights does.
    """

    def __init__(self, *args, mask_scale: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mask_scale = mask_scale
        self._add_conv_offset(3)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, O, Ho, Wo)``."""
        out = self.conv_offset(x)
        split = out.shape[1] // 3 * 2
        mask = out[:, split:].sigmoid()
        if self.mask_scale != 1:
            mask = mask * self.mask_scale
        return super().forward(x, out[:, :split], mask)

    def extra_repr(self) -> str:
        scaled = f", mask_scale={self.mask_scale}" if self.mask_scale != 1 else ""
        return super().extra_repr() + scaled
