"""Heads of R-FCN and Deformable R-FCN; importing this module needs MMDetection.

`R-FCN: Object Detection via Region-based Fully Convolutional Networks
<https://arxiv.org/abs/1605.06409>`_ (Dai et al., 2016), `Deformable Convolutional Networks
<https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017), modulated as in `Deformable ConvNets v2
<https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019).

All convolutions see the whole image, once. What is done for each region of interest (RoI) is to
pool ``k x k`` bins, each from maps of its own, and to average them: they vote.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RPNHead as MMDetRPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mmdcn.ops import DeformPSRoIPool, DeformPSRoIPoolPack, PSRoIPool
from mmdcn.registry import MODELS


@MODELS.register_module()
class RPNHead(MMDetRPNHead):
    """MMDetection's region proposal network on the first maps only: as many as its anchor
    generator has strides. The others are for the RoI head alone, as conv5 is in R-FCN."""

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps ``(N, C, H, W)`` -> logits ``(N, A, H, W)`` and boxes ``(N, 4 A, H, W)`` of the
        ``A`` anchors at each pixel, for each level."""
        return super().forward(x[: self.prior_generator.num_levels])


class PositionSensitivePredictor(nn.Module):
    """Takes the place of a linear layer on pooled features: a 1x1 convolution gives maps, RoIs are
    pooled from them, and the mean over their bins is the output.

    Args:
        in_features: channels of the feature map.
        out_features: outputs per RoI.
        roi_layer: config of a position-sensitive RoI pooling that is registered in mmdcn. Besides
            what stands in it, the layer gets what follows from the other arguments.
        class_aware: with learnt offsets, each output has its own.

    Raises:
        ValueError: `roi_layer` names another layer, or one whose cells are not its bins.
    """

    def __init__(
        self, in_features: int, out_features: int, roi_layer: dict, class_aware: bool
    ) -> None:
        super().__init__()
        options = dict(roi_layer)
        name = options.pop("type")
        layer = MODELS.get(name) if isinstance(name, str) else name
        if not (isinstance(layer, type) and issubclass(layer, (PSRoIPool, DeformPSRoIPool))):
            raise ValueError(
                "roi_layer: expected the type of a position-sensitive RoI pooling, PSRoIPool, "
                "DeformPSRoIPool, DeformPSRoIPoolPack or ModulatedDeformPSRoIPoolPack, "
                f"got {name!r}"
            )
        bins = options.get("output_size")
        if not isinstance(bins, int) or options.get("group_size", bins) != bins:
            raise ValueError(
                "roi_layer: expected an integer output_size, and group_size, if it is given, to be "
                f"the same, got output_size {bins} and group_size {options.get('group_size')}"
            )
        if issubclass(layer, DeformPSRoIPool):
            options.update(output_channels=out_features, group_size=bins)
        if issubclass(layer, DeformPSRoIPoolPack):
            options.update(
                num_classes=out_features if class_aware else 1, feature_channels=in_features
            )
        self.conv = nn.Conv2d(in_features, out_features * bins**2, 1)
        self.roi_layer = layer(**options)
        self.init_weights()

    def init_weights(self) -> None:
        """Small random weights; offsets and the logits of masks are zero."""
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)
        for parameter in self.roi_layer.parameters():
            nn.init.zeros_(parameter)

    def maps(self, features: Tensor) -> tuple[Tensor, ...]:
        """``(N, in_features, H, W)`` -> maps ``(N, out_features * k ** 2, H, W)`` to pool the
        outputs from and, if the RoI layer learns them, maps of offsets and masks."""
        part_maps = getattr(self.roi_layer, "part_maps", lambda _: ())
        return self.conv(features), *part_maps(features)

    def bins(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps as from :meth:`maps` and RoIs ``(R, 5)`` -> ``(R, out_features, k, k)``."""
        values, *part_maps = maps
        if part_maps:
            return self.roi_layer.pool(values, rois, part_maps)
        return self.roi_layer(values, rois)

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """As :meth:`bins`, averaged: ``(R, out_features)``."""
        return self.bins(maps, rois).mean((2, 3))


@MODELS.register_module()
class RFCNBBoxHead(BBoxHead):
    """Box head of R-FCN: a 1x1 convolution with ReLU, and on its output one
    :class:`PositionSensitivePredictor` for the classes and one for the boxes.

    Targets, losses and post-processing are those of MMDetection's ``BBoxHead``.

    Args:
        in_channels: channels of the feature map.
        feat_channels: channels of the 1x1 convolution.
        featmap_stride: pixels of the image per pixel of the feature map.
        num_classes: classes without the background, which comes last in the scores.
        roi_layer: the pooling and its number of bins, see :class:`PositionSensitivePredictor`:
            ``PSRoIPool`` or ``DeformPSRoIPool`` for R-FCN, ``DeformPSRoIPoolPack`` or
            ``ModulatedDeformPSRoIPoolPack`` for Deformable R-FCN. Offsets are class-aware for the
            scores, and shared by all outputs for the boxes.
        reg_class_agnostic: one box for all classes and not one for each.
        conv_cfg, norm_cfg: of the 1x1 convolution, as in MMCV's ``ConvModule``.
        kwargs: ``bbox_coder``, ``loss_cls``, ``loss_bbox`` and others of ``BBoxHead``.
    """

    def __init__(
        self,
        in_channels: int = 2048,
        feat_channels: int = 1024,
        featmap_stride: int = 16,
        num_classes: int = 80,
        roi_layer: dict | None = None,
        reg_class_agnostic: bool = True,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        roi_layer = roi_layer or dict(type="PSRoIPool", output_size=7)
        predictor = dict(
            type=PositionSensitivePredictor,
            roi_layer=dict(roi_layer, spatial_scale=1 / featmap_stride),
        )
        super().__init__(
            roi_feat_size=1,  # predictors read a pixel of the map
            in_channels=feat_channels,
            num_classes=num_classes,
            reg_class_agnostic=reg_class_agnostic,
            cls_predictor_cfg=dict(predictor, class_aware=True),
            reg_predictor_cfg=dict(predictor, class_aware=False),
            **kwargs,
        )
        self.init_cfg = None  # the predictors initialise themselves
        self.conv = ConvModule(in_channels, feat_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, in_channels, H, W)`` -> what :meth:`forward` pools from: maps of the classes, then
        as many of the boxes, each ``(N, channels, H, W)``."""
        features = self.conv(x)
        return *self.fc_cls.maps(features), *self.fc_reg.maps(features)

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Maps as from :meth:`maps` and RoIs ``(R, 5)`` in pixels of the image -> scores
        ``(R, num_classes + 1)`` and boxes ``(R, 4)``, ``(R, 4 * num_classes)`` if they are
        class-aware, before softmax and decoding."""
        half = len(maps) // 2
        return self.fc_cls(maps[:half], rois), self.fc_reg(maps[half:], rois)

    def loss(self, cls_score: Tensor, bbox_pred: Tensor | None, *args, **kwargs) -> dict:
        """As in ``BBoxHead``; without a RoI, the loss is zero and in the graph."""
        losses = super().loss(cls_score, bbox_pred, *args, **kwargs)
        losses.setdefault("loss_cls", cls_score.sum())
        return losses


@MODELS.register_module()
class RFCNRoIHead(StandardRoIHead):
    """RoI head of R-FCN, for boxes.

    Args:
        bbox_head: config of a :class:`RFCNBBoxHead`.
        level: index of the feature map it reads; the last one, conv5, by default.
        train_cfg, test_cfg, init_cfg: as in MMDetection's ``StandardRoIHead``.
    """

    def __init__(
        self,
        bbox_head: dict,
        level: int = -1,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            bbox_head=bbox_head, train_cfg=train_cfg, test_cfg=test_cfg, init_cfg=init_cfg
        )
        self.level = level

    def init_bbox_head(self, bbox_roi_extractor: None, bbox_head: dict) -> None:
        """There is no RoI extractor: the head pools."""
        self.bbox_head = MODELS.build(bbox_head)

    # The base class hands its argument `x` to `_bbox_forward`, and each image's part of it to
    # samplers that mine hard examples. Here `x` becomes the maps, computed once for all of these.

    def forward(self, x: Sequence[Tensor], *args, **kwargs) -> tuple:
        """As in ``StandardRoIHead``."""
        return super().forward(self.bbox_head.maps(x[self.level]), *args, **kwargs)

    def loss(self, x: Sequence[Tensor], *args, **kwargs) -> dict:
        """As in ``StandardRoIHead``."""
        return super().loss(self.bbox_head.maps(x[self.level]), *args, **kwargs)

    def predict(self, x: Sequence[Tensor], *args, **kwargs) -> list:
        """As in ``StandardRoIHead``."""
        return super().predict(self.bbox_head.maps(x[self.level]), *args, **kwargs)

    def _bbox_forward(self, maps: Sequence[Tensor], rois: Tensor) -> dict:
        cls_score, bbox_pred = self.bbox_head(maps, rois)
        return dict(cls_score=cls_score, bbox_pred=bbox_pred)
