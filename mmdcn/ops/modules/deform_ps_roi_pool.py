"""Modules of deformable position-sensitive RoI pooling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..deform_ps_roi_pool import deform_ps_roi_pool
from ..reference.arguments import IntPair, pair


class DeformPSRoIPool(nn.Module):
    """Deformable position-sensitive RoI pooling whose offsets come with the call, see
    :func:`deform_ps_roi_pool`.

    Args:
        output_size, output_channels, group_size, part_size: as in :func:`deform_ps_roi_pool`.
        sample_per_part, spatial_scale, trans_std: as there.
    """

    def __init__(
        self,
        output_size: IntPair,
        output_channels: int,
        group_size: int = 7,
        part_size: IntPair | None = None,
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
        output_size: IntPair,
        output_channels: int,
        group_size: int = 7,
        part_size: IntPair | None = None,
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
                output_channels=per_class * self.num_classes,
                group_size=self.group_size,
                sample_per_part=self.sample_per_part,
                spatial_scale=self.spatial_scale,
            )
            for maps, per_class in zip(part_maps, (2, 1), strict=False)
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
