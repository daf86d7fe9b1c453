"""A RoI extractor for MMDetection that takes the RoI poolings of :mod:`mmdcn.ops`.

MMDetection's own extractors look the type of their ``roi_layer`` up in ``mmcv.ops`` only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdcn.ops import DeformPSRoIPool, DeformRoIPool, PSRoIPool, RoIAvgPool
from mmdcn.registry import MODELS


@MODELS.register_module()
class SingleRoIExtractor(BaseModule):
    """MMDetection's extractor of this name, for RoI layers of any registry.

    Each RoI is pooled from one level of the pyramid, chosen by its size as `FPN
    <https://arxiv.org/abs/1612.03144>`_ does. mmdcn's layers get the RoIs in the dtype that they
    came in, which matters in mixed precision: bfloat16 is exact to 8 pixels at the right border of
    a common image.

    Args:
        roi_layer: config of the RoI layer. Its ``type`` is a class or a name: a registered one
            (``mmdcn.`` may be left out for mmdcn's own, other projects need their prefix), else one
            of ``mmcv.ops``. The layer also gets ``spatial_scale``.
        out_channels: channels of the pooled features.
        featmap_strides: strides of the levels, finest first.
        finest_scale: RoIs of a size (square root of the area in pixels) below twice this go to the
            first level, below four times this to the second, and so on.
        start_level: maps that come before those of `featmap_strides` and are left out.
        init_cfg: see :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        roi_layer: dict,
        out_channels: int,
        featmap_strides: Sequence[int],
        finest_scale: float = 56,
        start_level: int = 0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        options = dict(roi_layer)
        layer = _layer_class(options.pop("type"))
        self.roi_layers = nn.ModuleList(
            layer(spatial_scale=1 / stride, **options) for stride in featmap_strides
        )
        self.out_channels = out_channels
        self.featmap_strides = featmap_strides
        self.finest_scale = finest_scale
        self.start_level = start_level

    @property
    def num_inputs(self) -> int:
        """Number of maps that :meth:`forward` takes."""
        return self.start_level + len(self.featmap_strides)

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Level of each RoI, ``(R, 5)`` -> ``(R,)``."""
        x1, y1, x2, y2 = rois[:, 1:].unbind(1)
        scale = ((x2 - x1) * (y2 - y1)).sqrt()
        levels = (scale / self.finest_scale + 1e-6).log2().floor()
        return levels.nan_to_num(0.0).clamp(0, num_levels - 1).long()

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pool each RoI from its level.

        Args:
            feats: a map ``(N, C, H, W)`` for each level, after `start_level` others.
            rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels of the image.
            roi_scale_factor: enlarge the RoIs about their centres, after levels are chosen.

        Returns:
            ``(R, out_channels, ph, pw)``.
        """
        feats = feats[self.start_level :]
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = _scaled(rois, roi_scale_factor)
        output_size = self.roi_layers[0].output_size
        rows, parts = [], []
        for i, (feat, layer) in enumerate(zip(feats, self.roi_layers, strict=False)):
            rows.append((levels == i).nonzero()[:, 0])
            if len(rows[-1]):
                level_rois = rois[rows[-1]]
                if not isinstance(layer, _TAKE_ROIS_OF_ANY_DTYPE):
                    level_rois = level_rois.to(feat.dtype)
                parts.append(layer(feat, level_rois))
            else:
                # No values, but in the graph: distributed training wants a gradient for all.
                unused = [t.flatten()[:0].to(feat.dtype) for t in (feat, *layer.parameters())]
                parts.append(torch.cat(unused).view(0, self.out_channels, *output_size))
        dtype = next((part.dtype for part in parts if len(part)), feats[0].dtype)
        out = feats[0].new_zeros(len(rois), self.out_channels, *output_size, dtype=dtype)
        for row, part in zip(rows, parts, strict=True):
            out.index_copy_(0, row, part.to(dtype))
        return out


_TAKE_ROIS_OF_ANY_DTYPE = (DeformPSRoIPool, DeformRoIPool, PSRoIPool, RoIAvgPool)


def _layer_class(name: str | type[nn.Module]) -> type[nn.Module]:
    if not isinstance(name, str):
        return name
    layer = MODELS.get(name)
    if layer is None:
        try:
            from mmcv import ops as mmcv_ops  # optional, and slow to import
        except ImportError:
            mmcv_ops = None
        layer = getattr(mmcv_ops, name, None)
    if layer is None:
        raise ValueError(
            "roi_layer: expected the type of a registered RoI layer (as in 'mmdcn.DeformRoIPool') "
            f"or of one in mmcv.ops, got '{name}'"
        )
    return layer


def _scaled(rois: Tensor, factor: float) -> Tensor:
    """RoIs of ``factor`` times the size about the same centres."""
    index, corners = rois.split([1, 4], 1)
    start, end = corners.split(2, 1)
    center, half = (start + end) / 2, (end - start) / 2 * factor
    return torch.cat([index, center - half, center + half], 1)
