"""Deformable position-sensitive RoI pooling: function and modules.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017, section
2.2), for R-FCN; with a mask, `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et
al., 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _extension
from . import reference
from ._arguments import check_dim, check_like, check_pair, check_shape, pair
from ._rois import MAX_SAMPLING_RATIO, check_rois, fake_grad, fake_grad_input

_Pair = int | Sequence[int]


def deform_ps_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: _Pair = 7,
    output_channels: int | None = None,
    group_size: int = 7,
    part_size: _Pair | None = None,
    sample_per_part: int = 4,
    spatial_scale: float = 1.0,
    trans_std: float = 0.1,
) -> Tensor:
    r"""Position-sensitive pooling of regions of interest (RoIs) into bins that a learnt offset
    may shift.

    A RoI is covered by ``group_size x group_size`` cells. A bin of output channel ``c`` whose
    place is in cell ``(gh, gw)`` reads input channel ``(c * group_size + gh) * group_size + gw``:
    it is the mean of bilinear samples on an even grid that starts at the bin's corner, scaled by
    its mask. Corners of a RoI are rounded, halves away from zero, and the far one belongs to the
    RoI, whose size is at least 0.1 pixels of the map.

    A sample further than half a pixel outside the map does not count, others are clamped into it;
    a bin without samples is 0. A bin with an offset that is not finite, and all bins of a RoI with
    a coordinate that is not finite, pool to 0 and have a zero gradient. There is no gradient for
    ``rois``.

    Args:
        input: ``(N, output_channels * group_size ** 2, H, W)``; float64, float32, bfloat16 or
            float16 (the low-precision ones are accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        offset: ``(R, 2 * classes, part_h, part_w)`` or None. Channel ``2 k`` shifts bins of class
            ``k`` horizontally, the next one vertically, in units of ``trans_std`` times the width
            or height of the RoI. The output channels are cut into ``classes`` equal runs.
        mask: ``(R, classes, part_h, part_w)`` or None, the factor of each bin.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        output_channels: by default as many as ``input`` has for ``group_size``.
        group_size: cells per RoI along each axis.
        part_size: parts of a RoI with offsets and masks of their own, an integer or a pair;
            ``output_size`` by default.
        sample_per_part: samples per bin along each axis.
        spatial_scale: pixels of ``input`` per pixel of the image.
        trans_std: scale of the offsets.

    Returns:
        ``(R, output_channels, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    if not _extension.use_native(input.device.type):
        return reference.deform_ps_roi_pool(
            input, rois, offset, mask, output_size, output_channels, group_size, part_size,
            sample_per_part, spatial_scale, trans_std,
        )  # fmt: skip
    output_size = pair(output_size, "output_size")
    return torch.ops.mmdcn.deform_ps_roi_pool.default(
        input,
        rois,
        offset,
        mask,
        output_size,
        default_channels(input, group_size) if output_channels is None else output_channels,
        group_size,
        output_size if part_size is None else pair(part_size, "part_size"),
        sample_per_part,
        spatial_scale,
        trans_std,
    )


def default_channels(input: Tensor, group_size: int) -> int:
    """Number of output channels that follows from ``input``."""
    if group_size <= 0:
        raise ValueError(f"group_size: expected a positive number, got {group_size}")
    if input.dim() != 4 or input.shape[1] % group_size**2:
        raise ValueError(
            f"input: expected a 4-dimensional tensor with channels that group_size "
            f"{group_size}x{group_size} divides, got shape {tuple(input.shape)}"
        )
    return input.shape[1] // group_size**2


def check_arguments(
    input, rois, offset, mask, output_size, output_channels, group_size, part_size,
    sample_per_part, spatial_scale, trans_std,
) -> int:  # fmt: skip
    """Number of classes; raises ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    for value, name in ((output_channels, "output_channels"), (group_size, "group_size")):
        if value <= 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    check_pair(part_size, "part_size", 1)
    if not 0 < sample_per_part <= MAX_SAMPLING_RATIO:
        raise ValueError(
            f"sample_per_part: expected an integer in [1, {MAX_SAMPLING_RATIO}], "
            f"got {sample_per_part}"
        )
    if not math.isfinite(trans_std):
        raise ValueError(f"trans_std: expected a finite number, got {trans_std}")
    batch, _, height, width = input.shape
    check_shape(input, "input", (batch, output_channels * group_size**2, height, width))

    classes = None
    for tensor, name, per_class in ((offset, "offset", 2), (mask, "mask", 1)):
        if tensor is None:
            continue
        check_like(tensor, name, input, "input")
        check_dim(tensor, name, 4)
        found = tensor.shape[1] // per_class
        if tensor.shape[1] % per_class or not found or output_channels % found:
            raise ValueError(
                f"{name}: expected {per_class} channels per class, in a number of classes that "
                f"divides output_channels ({output_channels}), got {tensor.shape[1]} channels"
            )
        classes = classes or found
        check_shape(tensor, name, (rois.shape[0], per_class * classes, *part_size))
    return classes or 1


def _fake(input, rois, offset, mask, output_size, output_channels, *options):
    check_arguments(input, rois, offset, mask, output_size, output_channels, *options)
    return input.new_empty(rois.shape[0], output_channels, *output_size)


def _backward_fake(grad_output, input, rois, offset, mask, *options):
    need_input, need_offset, _ = options[-3:]
    return (
        fake_grad_input(input, need_input),
        fake_grad(input, offset, need_offset),
        fake_grad(input, mask, need_offset),
    )


def _setup_context(ctx, inputs, output):
    input, rois, offset, mask, *ctx.options = inputs
    ctx.save_for_backward(input, rois, offset, mask)


def _backward(ctx, grad_output):
    needs = ctx.needs_input_grad
    grads = torch.ops.mmdcn.deform_ps_roi_pool_backward.default(
        grad_output,
        *ctx.saved_tensors,
        *ctx.options,
        needs[0],
        needs[2] or needs[3],
        torch.are_deterministic_algorithms_enabled(),
    )
    grad_input, grad_offset, grad_mask = (
        grad if need else None
        for grad, need in zip(grads, (needs[0], needs[2], needs[3]), strict=True)
    )
    return grad_input, None, grad_offset, grad_mask, *[None] * len(ctx.options)


def _flops(
    input_shape, rois_shape, offset_shape, mask_shape, output_size, output_channels, group_size,
    part_size, sample_per_part, *_, out_shape, **__,
) -> int:  # fmt: skip
    """Two operations per multiply-add and four neighbours per sample."""
    return 2 * 4 * sample_per_part**2 * math.prod(out_shape)


def _backward_flops(
    grad_shape, input_shape, rois_shape, offset_shape, mask_shape, output_size, output_channels,
    group_size, part_size, sample_per_part, spatial_scale, trans_std, need_input, need_offset,
    *_, **__,
) -> int:  # fmt: skip
    """Scattering to the input as much as the forward; value and two derivatives for the rest."""
    samples = sample_per_part**2 * math.prod(grad_shape)
    return 2 * 4 * samples * (bool(need_input) + 3 * bool(need_offset))


if _extension.schemas_available():
    from ._registration import register

    register(
        "deform_ps_roi_pool",
        fake=_fake,
        backward_fake=_backward_fake,
        setup_context=_setup_context,
        backward=_backward,
        flops=_flops,
        backward_flops=_backward_flops,
        autocast_keeps=("rois",),
    )


class DeformPSRoIPool(nn.Module):
    """Deformable position-sensitive RoI pooling whose offsets come with the call, see
    :func:`deform_ps_roi_pool`.

    Args:
        output_size, output_channels, group_size, part_size: as in :func:`deform_ps_roi_pool`.
        sample_per_part, spatial_scale, trans_std: as there.
    """

    def __init__(
        self,
        output_size: _Pair,
        output_channels: int,
        group_size: int = 7,
        part_size: _Pair | None = None,
        sample_per_part: int = 4,
        spatial_scale: float = 1.0,
        trans_std: float = 0.1,
    ) -> None:
        super().__init__()
        self.output_size = tuple(pair(output_size, "output_size"))
        self.output_channels = output_channels
        self.group_size = group_size
        self.part_size = (
            self.output_size if part_size is None else tuple(pair(part_size, "part_size"))
        )
        self.sample_per_part = sample_per_part
        self.spatial_scale = float(spatial_scale)
        self.trans_std = float(trans_std)

    def forward(
        self, input: Tensor, rois: Tensor, offset: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(N, output_channels * group_size ** 2, H, W)``, ``(R, 5)``, offsets and mask ->
        ``(R, output_channels, ph, pw)``."""
        return deform_ps_roi_pool(
            input,
            rois,
            offset,
            mask,
            self.output_size,
            self.output_channels,
            self.group_size,
            self.part_size,
            self.sample_per_part,
            self.spatial_scale,
            self.trans_std,
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, output_channels={self.output_channels}, "
            f"group_size={self.group_size}, part_size={self.part_size}, "
            f"sample_per_part={self.sample_per_part}, spatial_scale={self.spatial_scale}, "
            f"trans_std={self.trans_std}"
        )


class DeformPSRoIPoolPack(DeformPSRoIPool):
    """Deformable position-sensitive RoI pooling that learns its offsets, as in the paper: a 1x1
    convolution ``conv_offset``, zero at the start, gives maps of offsets, which the same pooling
    without offsets turns into those of a RoI.

    Args:
        output_size, output_channels, group_size, part_size: as in :func:`deform_ps_roi_pool`.
        sample_per_part, spatial_scale, trans_std: as there.
        num_classes: runs of output channels with offsets of their own.
        feature_channels: channels of the feature map that the offsets are predicted from; those
            of the pooled input by default.
    """

    def __init__(
        self,
        output_size: _Pair,
        output_channels: int,
        group_size: int = 7,
        part_size: _Pair | None = None,
        sample_per_part: int = 4,
        spatial_scale: float = 1.0,
        trans_std: float = 0.1,
        num_classes: int = 1,
        feature_channels: int | None = None,
    ) -> None:
        super().__init__(
            output_size, output_channels, group_size, part_size, sample_per_part, spatial_scale,
            trans_std,
        )  # fmt: skip
        self.num_classes = num_classes
        self.feature_channels = feature_channels or output_channels * group_size**2
        self.conv_offset = self._zero_conv(2)

    def _zero_conv(self, per_class: int) -> nn.Conv2d:
        channels = per_class * self.num_classes * self.group_size**2
        conv = nn.Conv2d(self.feature_channels, channels, 1)
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        return conv

    def part_maps(self, features: Tensor) -> tuple[Tensor, ...]:
        """Position-sensitive maps of the offsets and, if there are any, of the masks' logits."""
        return (self.conv_offset(features),)

    def parts(self, part_maps: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, ...]:
        """Offsets and, if there are any, masks of the parts of ``(R, 5)`` RoIs, as
        :func:`deform_ps_roi_pool` takes them."""
        offset, *logits = (
            deform_ps_roi_pool(
                maps,
                rois,
                output_size=self.part_size,
                group_size=self.group_size,
                sample_per_part=self.sample_per_part,
                spatial_scale=self.spatial_scale,
            )
            for maps in part_maps
        )
        return offset, *(logit.sigmoid() for logit in logits)

    def pool(self, input: Tensor, rois: Tensor, part_maps: Sequence[Tensor]) -> Tensor:
        """Pool with the offsets from maps that :meth:`part_maps` gave, for callers that pool from
        the same maps several times."""
        return super().forward(input, rois, *self.parts(part_maps, rois))

    def forward(self, input: Tensor, rois: Tensor, features: Tensor | None = None) -> Tensor:
        """``(N, output_channels * group_size ** 2, H, W)``, ``(R, 5)`` and the feature map
        ``(N, feature_channels, H, W)`` to predict from, ``input`` by default ->
        ``(R, output_channels, ph, pw)``."""
        features = input if features is None else features
        return self.pool(input, rois, self.part_maps(features))


class ModulatedDeformPSRoIPoolPack(DeformPSRoIPoolPack):
    """Deformable position-sensitive RoI pooling that learns its offsets and masks, arguments as in
    :class:`DeformPSRoIPoolPack`.

    A second 1x1 convolution, ``conv_mask``, gives the logits of the masks, which are 0.5 at the
    start.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.conv_mask = self._zero_conv(1)

    def part_maps(self, features: Tensor) -> tuple[Tensor, ...]:
        """As in :class:`DeformPSRoIPoolPack`."""
        return self.conv_offset(features), self.conv_mask(features)
