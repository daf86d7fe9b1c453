"""Deformable convolution v1 and v2: functions and modules.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017) and
`Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _extension
from . import reference
from ._arguments import (
    check_dim,
    check_divisor,
    check_floating,
    check_like,
    check_pair,
    check_pixels,
    check_shape,
    conv_out_size,
    pair,
)

_Pair = int | Sequence[int]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution (DCNv1): each kernel tap samples at a learnt offset.

    Samples are interpolated bilinearly, with zeros outside of the input. Where an offset is not
    finite the sample is 0. All tensors have one device and one dtype (float64, float32, bfloat16,
    float16; the low-precision ones are accumulated in float32, and bfloat16 samples may be rounded
    before they are multiplied), or any mix of them under autocast.

    Args:
        input: ``(N, C, H, W)``.
        offset: ``(N, deform_groups * 2 * kh * kw, Ho, Wo)`` in input pixels. Channel
            ``2 (d kh kw + k)`` is the vertical, the next one the horizontal offset of tap
            ``k = i kw + j`` in deformable group ``d``.
        weight: ``(O, C / groups, kh, kw)``.
        bias: ``(O,)`` or None.
        stride, padding, dilation: an integer or a pair (vertical, horizontal).
        groups: groups of the convolution.
        deform_groups: the channels are cut into this many groups with offsets of their own.

    Returns:
        ``(N, O, Ho, Wo)``, in the memory format of ``input``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value.
    """
    return _deform_conv2d(
        input, offset, None, weight, bias, stride, padding, dilation, groups, deform_groups
    )


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Modulated deformable convolution (DCNv2): each sample is also scaled by a learnt mask.

    Args:
        mask: ``(N, deform_groups * kh * kw, Ho, Wo)``, the factor of each sample (usually a
            sigmoid, applied by the caller).

    The other arguments, the result and the errors are those of :func:`deform_conv2d`.
    """
    return _deform_conv2d(
        input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
    )


def _deform_conv2d(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
):
    if not _extension.use_native(input.device.type):
        return reference.deform_conv._deform_conv2d(
            input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
        )
    return torch.ops.mmdcn.deform_conv2d.default(
        input,
        offset,
        mask,
        weight,
        bias,
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
        groups,
        deform_groups,
    )


def check_arguments(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
) -> tuple[int, int]:
    """Output height and width; raises ValueError for arguments that do not fit."""
    check_dim(input, "input", 4)
    check_dim(weight, "weight", 4)
    check_floating(input, "input")
    for tensor, name in ((offset, "offset"), (mask, "mask"), (weight, "weight"), (bias, "bias")):
        if tensor is not None:
            check_like(tensor, name, input, "input")
    check_pair(stride, "stride", 1)
    check_pair(padding, "padding", 0)
    check_pair(dilation, "dilation", 1)
    batch, channels, height, width = input.shape
    out_channels, _, kh, kw = weight.shape
    check_divisor(groups, "groups", channels, "input channels")
    check_divisor(deform_groups, "deform_groups", channels, "input channels")
    if out_channels <= 0 or out_channels % groups:
        raise ValueError(
            "weight: expected a positive number of output channels that groups "
            f"({groups}) divides, got {out_channels}"
        )
    if kh <= 0 or kw <= 0:
        raise ValueError(f"weight: expected a non-empty kernel, got {kh}x{kw}")
    check_shape(weight, "weight", (out_channels, channels // groups, kh, kw))
    check_pixels(height, width)
    out_h = conv_out_size(height, kh, stride[0], padding[0], dilation[0])
    out_w = conv_out_size(width, kw, stride[1], padding[1], dilation[1])
    points = deform_groups * kh * kw
    check_shape(offset, "offset", (batch, 2 * points, out_h, out_w))
    if mask is not None:
        check_shape(mask, "mask", (batch, points, out_h, out_w))
    if bias is not None:
        check_shape(bias, "bias", (out_channels,))
    return out_h, out_w


def _memory_format(input: Tensor) -> torch.memory_format:
    channels_last = input.is_contiguous(memory_format=torch.channels_last)
    if channels_last and not input.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def _fake(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    out_h, out_w = check_arguments(
        input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
    )
    return torch.empty(
        (input.shape[0], weight.shape[0], out_h, out_w),
        dtype=input.dtype,
        device=input.device,
        memory_format=_memory_format(input),
    )


def _backward_fake(
    grad_output, input, offset, mask, weight, stride, padding, dilation, groups, deform_groups,
    need_input, need_offset, need_weight, deterministic,
):  # fmt: skip
    def grad(needed, tensor):
        return torch.empty(tensor.shape if needed else (0,), dtype=input.dtype, device=input.device)

    grad_input = grad(need_input, input)
    if need_input:
        grad_input = grad_input.contiguous(memory_format=_memory_format(input))
    return (
        grad_input,
        grad(need_offset, offset),
        grad(need_offset and mask is not None, offset if mask is None else mask),
        grad(need_weight, weight),
        input.new_empty(weight.shape[0] if need_weight else 0),
    )


def _setup_context(ctx, inputs, output):
    input, offset, mask, weight, _, *ctx.options = inputs
    ctx.save_for_backward(input, offset, mask, weight)


def _backward(ctx, grad_output):
    input, offset, mask, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad
    grads = torch.ops.mmdcn.deform_conv2d_backward(
        grad_output,
        input,
        offset,
        mask,
        weight,
        *ctx.options,
        needs[0],
        needs[1] or needs[2],
        needs[3] or needs[4],
        torch.are_deterministic_algorithms_enabled(),
    )
    return *(g if need else None for g, need in zip(grads, needs[:5], strict=True)), *[None] * 5


def _multiply_adds(input_shape, mask_shape, weight_shape, out_shape) -> tuple[int, int]:
    """Multiply-adds of the matrix product, and number of samples."""
    batch, out_channels, out_h, out_w = out_shape
    pixels = batch * out_h * out_w
    product = pixels * out_channels * weight_shape[1] * weight_shape[2] * weight_shape[3]
    return product, pixels * input_shape[1] * weight_shape[2] * weight_shape[3]


def _flops(input_shape, offset_shape, mask_shape, weight_shape, *_, out_shape, **__) -> int:
    """Two operations per multiply-add; a sample has four, and one more when modulated."""
    product, samples = _multiply_adds(input_shape, mask_shape, weight_shape, out_shape)
    return 2 * (product + samples * (4 if mask_shape is None else 5))


def _backward_flops(
    grad_shape, input_shape, offset_shape, mask_shape, weight_shape, stride, padding, dilation,
    groups, deform_groups, need_input, need_offset, need_weight, *_, **__,
) -> int:  # fmt: skip
    """Columns recomputed for the weight, dot products for the offsets, scattering to the input."""
    product, samples = _multiply_adds(input_shape, mask_shape, weight_shape, grad_shape)
    per_sample = 4 if mask_shape is None else 5
    total = product * (bool(need_input or need_offset) + bool(need_weight))
    total += samples * per_sample * (bool(need_input) + bool(need_offset) + bool(need_weight))
    return 2 * total


if _extension.schemas_available():
    from ._registration import register

    register(
        "deform_conv2d",
        fake=_fake,
        backward_fake=_backward_fake,
        setup_context=_setup_context,
        backward=_backward,
        flops=_flops,
        backward_flops=_backward_flops,
    )


class _DeformConvBase(nn.Module):
    """Hyperparameters and weight shared by the four modules."""

    _version = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Pair = 0,
        dilation: _Pair = 1,
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
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._add_conv_offset(3)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` -> ``(N, O, Ho, Wo)``."""
        out = self.conv_offset(x)
        split = out.shape[1] // 3 * 2
        return super().forward(x, out[:, :split], out[:, split:].sigmoid())
