"""Deformable RoI pooling: function and modules.

`Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017, section
2.2); with a mask, `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _extension
from . import reference
from ._arguments import pair
from ._rois import MAX_SAMPLING_RATIO, check_optional, check_rois, fake_grad, fake_grad_input

_Pair = int | Sequence[int]


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None = None,
    mask: Tensor | None = None,
    output_size: _Pair = 7,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    r"""Pool each region of interest (RoI) into bins that a learnt offset may shift.

    A bin is the mean of bilinear samples on an even grid, scaled by its mask. Without ``offset``
    and ``mask`` this is RoIAlign with half-pixel alignment (``aligned=True``).

    A sample more than a pixel outside the map is 0, others are clamped into it. A bin with an
    offset that is not finite, and all bins of a RoI with a coordinate that is not finite, pool to
    0 and have a zero gradient, as do bins of a RoI of negative size on an adaptive grid. There is
    no gradient for ``rois``.

    Args:
        input: ``(N, C, H, W)``; float64, float32, bfloat16 or float16 (the low-precision ones are
            accumulated in float32).
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image; any
            floating-point dtype, which autocast leaves alone.
        offset: ``(R, 2, ph, pw)`` or None. Channel 0 shifts a bin horizontally, channel 1
            vertically, in units of ``gamma`` times the width or height of the RoI.
        mask: ``(R, 1, ph, pw)`` or None, the factor of each bin.
        output_size: bins per RoI, an integer or a pair (vertical, horizontal).
        spatial_scale: pixels of ``input`` per pixel of the image.
        sampling_ratio: samples per bin along each axis. 0 takes one per pixel, rounded up; at
            most four times the size of the map.
        gamma: scale of the offsets.

    Returns:
        ``(R, C, ph, pw)``.

    Raises:
        RuntimeError, ValueError: an argument has a wrong shape, dtype, device or value, or a batch
            index is not in ``[0, N)``.
    """
    if not _extension.use_native(input.device.type):
        return reference.deform_roi_pool(
            input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma
        )
    return torch.ops.mmdcn.deform_roi_pool.default(
        input,
        rois,
        offset,
        mask,
        pair(output_size, "output_size"),
        spatial_scale,
        sampling_ratio,
        gamma,
    )


def check_arguments(
    input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma
) -> None:
    """Raise ValueError for arguments that do not fit."""
    check_rois(input, rois, output_size, spatial_scale)
    if not 0 <= sampling_ratio <= MAX_SAMPLING_RATIO:
        raise ValueError(
            f"sampling_ratio: expected an integer in [0, {MAX_SAMPLING_RATIO}], "
            f"got {sampling_ratio}"
        )
    if not math.isfinite(gamma):
        raise ValueError(f"gamma: expected a finite number, got {gamma}")
    check_optional(offset, "offset", input, (rois.shape[0], 2, *output_size))
    check_optional(mask, "mask", input, (rois.shape[0], 1, *output_size))


def _fake(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma):
    check_arguments(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma)
    return input.new_empty(rois.shape[0], input.shape[1], *output_size)


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
    grads = torch.ops.mmdcn.deform_roi_pool_backward.default(
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
    input_shape, rois_shape, offset_shape, mask_shape, output_size, spatial_scale, sampling_ratio,
    *_, out_shape, **__,
) -> int:  # fmt: skip
    """Two operations per multiply-add and four neighbours per sample. How many samples an
    adaptive grid has, the shapes do not say: it counts as one."""
    return 2 * 4 * max(sampling_ratio, 1) ** 2 * math.prod(out_shape)


def _backward_flops(
    grad_shape, input_shape, rois_shape, offset_shape, mask_shape, output_size, spatial_scale,
    sampling_ratio, gamma, need_input, need_offset, *_, **__,
) -> int:  # fmt: skip
    """Scattering to the input as much as the forward; value and two derivatives for the rest."""
    samples = max(sampling_ratio, 1) ** 2 * math.prod(grad_shape)
    return 2 * 4 * samples * (bool(need_input) + 3 * bool(need_offset))


if _extension.schemas_available():
    from ._registration import register

    register(
        "deform_roi_pool",
        fake=_fake,
        backward_fake=_backward_fake,
        setup_context=_setup_context,
        backward=_backward,
        flops=_flops,
        backward_flops=_backward_flops,
        autocast_keeps=("rois",),
    )


class DeformRoIPool(nn.Module):
    """Deformable RoI pooling whose offsets come with the call, see :func:`deform_roi_pool`.

    Args:
        output_size, spatial_scale, sampling_ratio, gamma: as in :func:`deform_roi_pool`.
    """

    def __init__(
        self,
        output_size: _Pair,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        self.output_size = tuple(pair(output_size, "output_size"))
        self.spatial_scale = float(spatial_scale)
        self.sampling_ratio = int(sampling_ratio)
        self.gamma = float(gamma)

    def forward(
        self, input: Tensor, rois: Tensor, offset: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(N, C, H, W)``, ``(R, 5)``, offsets and mask -> ``(R, C, ph, pw)``."""
        return deform_roi_pool(
            input,
            rois,
            offset,
            mask,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.gamma,
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, gamma={self.gamma}"
        )


class DeformRoIPoolPack(DeformRoIPool):
    """Deformable RoI pooling that learns its offsets (DCNv1).

    Three fully connected layers predict them from the RoI pooled without offsets; the last one is
    zero at the start. State-dict keys equal those of mmcv's module of this name.

    Args:
        output_size, spatial_scale, sampling_ratio, gamma: as in :func:`deform_roi_pool`.
        output_channels: channels of the input, and of the output.
        deform_fc_channels: width of the hidden layers.
    """

    def __init__(
        self,
        output_size: _Pair,
        output_channels: int,
        deform_fc_channels: int = 1024,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, gamma)
        self.output_channels = output_channels
        self.deform_fc_channels = deform_fc_channels
        bins, hidden = math.prod(self.output_size), deform_fc_channels
        self.offset_fc = nn.Sequential(
            nn.Linear(bins * output_channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, bins * 2),
        )
        _zero(self.offset_fc[-1])

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        pooled = self._pool_plainly(input, rois)
        return super().forward(input, rois, self._predict_offset(pooled))

    def _pool_plainly(self, input: Tensor, rois: Tensor) -> Tensor:
        if input.shape[1] != self.output_channels:
            raise ValueError(
                f"input: expected {self.output_channels} channels (output_channels), "
                f"got shape {tuple(input.shape)}"
            )
        return super().forward(input, rois).flatten(1)

    def _predict_offset(self, pooled: Tensor) -> Tensor:
        return self.offset_fc(pooled).unflatten(1, (2, *self.output_size))


class ModulatedDeformRoIPoolPack(DeformRoIPoolPack):
    """Deformable RoI pooling that learns its offsets and masks (DCNv2), arguments as in
    :class:`DeformRoIPoolPack`. State-dict keys equal those of mmcv's module of this name.

    Two fully connected layers and a sigmoid predict the mask, which is 0.5 at the start.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        bins, hidden = math.prod(self.output_size), self.deform_fc_channels
        self.mask_fc = nn.Sequential(
            nn.Linear(bins * self.output_channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, bins),
            nn.Sigmoid(),
        )
        _zero(self.mask_fc[2])

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        pooled = self._pool_plainly(input, rois)
        mask = self.mask_fc(pooled).unflatten(1, (1, *self.output_size))
        return DeformRoIPool.forward(self, input, rois, self._predict_offset(pooled), mask)


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
