"""Modules of deformable RoI pooling."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.fx import Proxy

from ..deform_roi_pool import deform_roi_pool
from ..reference.arguments import IntPair, pair


class DeformRoIPool(nn.Module):
    """Deformable RoI pooling whose offsets come with the call, see :func:`deform_roi_pool`.

    Args:
        output_size, spatial_scale, sampling_ratio, gamma: as in :func:`deform_roi_pool`.
    """

    def __init__(
        self,
        output_size: IntPair,
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

    Fully connected layers predict them from the RoI pooled without offsets; the last one is zero at
    the start. With three of them, state-dict keys equal those of mmcv's module of this name; the
    paper has one.

    Args:
        output_size, spatial_scale, sampling_ratio, gamma: as in :func:`deform_roi_pool`.
        output_channels: channels of the input, and of the output.
        deform_fc_channels: width of the hidden layers.
        num_offset_fcs: number of fully connected layers.
    """

    def __init__(
        self,
        output_size: IntPair,
        output_channels: int,
        deform_fc_channels: int = 1024,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
        num_offset_fcs: int = 3,
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, gamma)
        if num_offset_fcs < 1:
            raise ValueError(f"num_offset_fcs: expected at least 1, got {num_offset_fcs}")
        self.output_channels = output_channels
        self.deform_fc_channels = deform_fc_channels
        bins, hidden = math.prod(self.output_size), deform_fc_channels
        widths = [bins * output_channels, *[hidden] * (num_offset_fcs - 1), bins * 2]
        layers = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.offset_fc = nn.Sequential(*layers[:-1])
        _zero(self.offset_fc[-1])

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """``(N, C, H, W)`` and ``(R, 5)`` -> ``(R, C, ph, pw)``."""
        pooled = self._pool_plainly(input, rois)
        return super().forward(input, rois, self._predict_offset(pooled))

    def _pool_plainly(self, input: Tensor, rois: Tensor) -> Tensor:
        if not isinstance(input, Proxy) and input.shape[1] != self.output_channels:
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
