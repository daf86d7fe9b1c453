"""Two-stage detectors as functions of an image, without loops that depend on what is found.

What is computed is what MMDetection's ``predict`` computes. Lists of boxes have a fixed length:
what is missing has the score 0, so that nothing depends on their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn
from torch.nn import functional as F

from mmdcn import ops
from mmdcn.deployment.networks import Network
from mmdcn.engine.errors import UsageError
from mmdcn.models.heads.r_fcn import RFCNRoIHead
from mmdcn.onnx.suppression import suppress


def keep_best(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict, most: int
) -> tuple[Tensor, Tensor]:
    """Suppression within each group, as MMCV's ``batched_nms`` does it.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``; those of 0 or less are no boxes.
        groups: ``(n,)``, level or class of each.
        nms: Config of the suppression.
        most: Length m of the results.

    Returns:
        Indices ``(m,)``, 0 where there is no box, and whether there is one ``(m,)``.
    """
    apart = groups.to(boxes.dtype) * (boxes.max() + 1)
    index = suppress(boxes + apart[:, None], scores, nms["iou_threshold"], most)
    index, found = index.clamp(min=0), index >= 0
    return index, found & (scores[index] > 0)


def network_of(model: nn.Module, normalize: bool) -> Network:
    """The network of a detector.

    Raises:
        UsageError: It is of a kind that cannot be exported.
    """
    if isinstance(model, TwoStageDetector):
        return TwoStage(model, normalize)
    raise UsageError(
        f"model.type: {type(model).__name__} cannot be exported; two-stage detectors with "
        "proposals of an RPN can be"
    )


def pool(layer: nn.Module, maps: Tensor, rois: Tensor) -> Tensor:
    """A RoI layer; MMCV's RoIAlign, which cannot be exported, as the same by mmdcn."""
    if not isinstance(layer, RoIAlign):
        return layer(maps, rois)
    return ops.deform_roi_pool(
        maps,
        rois,
        output_size=layer.output_size,
        spatial_scale=layer.spatial_scale,
        sampling_ratio=layer.sampling_ratio,
    )


class TwoStage(Network):
    """Faster, Mask or Cascade R-CNN, with any of their RoI heads here and in MMDetection.

    Raises:
        UsageError: A part is of a class whose prediction is not known here, or an option is not
            supported: soft suppression, boxes that are not (x1, y1, x2, y2).
    """

    def __init__(self, model: TwoStageDetector, normalize: bool) -> None:
        super().__init__(model, normalize)
        _check(model)
        head = model.roi_head
        self.outputs = ("dets", "labels", *["masks"] * head.with_mask)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One image ``(1, 3, H, W)`` -> boxes with scores, labels and masks.

        Returns:
            ``dets`` ``(m, 5)`` as (x1, y1, x2, y2, score), best first; m is ``max_per_img`` of
            the config. Rows beyond what was found have the score 0. ``labels`` ``(m,)``, int64, -1
            there. With masks, ``masks`` ``(m, h, w)``: the probability within each box.
        """
        size = tuple(image.shape[2:])
        maps = self.model.extract_feat(self.prepared(image))
        rois, valid = self.proposals(maps, size)
        cascade = isinstance(self.model.roi_head, CascadeRoIHead)
        boxes, scores = (self.cascade if cascade else self.standard)(maps, rois, size)
        dets, labels, found = self.best(boxes, scores.where(valid[:, None], 0.0))
        if not self.model.roi_head.with_mask:
            return dets, labels
        return dets, labels, self.masks(maps, dets, labels.clamp(min=0))

    def proposals(self, maps: Sequence[Tensor], size: tuple) -> tuple[Tensor, Tensor]:
        """RoIs ``(p, 5)``, and which of them there are ``(p,)``."""
        head = self.model.rpn_head
        cfg = self.model.test_cfg.rpn
        outputs = head(tuple(maps))
        priors = head.prior_generator.grid_priors(
            [scores.shape[-2:] for scores in outputs[0]], device=maps[0].device
        )
        boxes, scores, levels = [], [], []
        for level, (logits, deltas, anchors) in enumerate(zip(*outputs, priors, strict=True)):
            logits = logits[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            one = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]
            one = one[:, 0]
            wanted, count = cfg.get("nms_pre", -1), one.shape[0]
            if wanted > 0 and not isinstance(count, int):  # maybe fewer than are wanted
                one = F.pad(one, (0, wanted))
                deltas, anchors = (
                    F.pad(deltas, (0, 0, 0, wanted)),
                    F.pad(anchors, (0, 0, 0, wanted)),
                )
            if wanted > 0 and (not isinstance(count, int) or wanted < count):
                one, chosen = one.topk(wanted)
                deltas, anchors = deltas[chosen], anchors[chosen]
            boxes.append(head.bbox_coder.decode(anchors, deltas, max_shape=size))
            scores.append(one)
            levels.append(torch.full_like(one, level))
        box, score, level = map(torch.cat, (boxes, scores, levels))
        least = cfg.get("min_bbox_size", -1)
        if least >= 0:
            large = ((box[:, 2:] - box[:, :2]) > least).all(dim=1)
            score = score.where(large, 0.0)
        index, valid = keep_best(box, score, level, cfg.nms, cfg.max_per_img)
        chosen = box[index]
        return torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1), valid

    def pooled(self, extractor: nn.Module, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Features of each RoI from the level of its size."""
        maps = maps[: extractor.num_inputs]
        maps = maps[getattr(extractor, "start_level", 0) :]
        pooled = [pool(layer, m, rois) for layer, m in zip(extractor.roi_layers, maps, strict=True)]
        level = extractor.map_roi_levels(rois, len(pooled))[:, None, None, None]
        features = pooled[0]
        for index, one in enumerate(pooled[1:], 1):
            features = one.where(level == index, features)
        return features

    def standard(self, maps, rois: Tensor, size: tuple) -> tuple[Tensor, Tensor]:
        """Boxes ``(p, classes or 1, 4)`` and scores ``(p, classes)``."""
        head = self.model.roi_head
        if isinstance(head, RFCNRoIHead):
            logits, deltas = head.bbox_head(head.bbox_head.maps(maps[head.level]), rois)
        else:
            logits, deltas = head.bbox_head(self.pooled(head.bbox_roi_extractor, maps, rois))
        return self.decoded(head.bbox_head, rois, deltas, size), _scores(logits)

    def cascade(self, maps, rois: Tensor, size: tuple) -> tuple[Tensor, Tensor]:
        """As :meth:`standard`, with the mean of the logits of all stages."""
        head = self.model.roi_head
        stages = []
        for stage, box_head in enumerate(head.bbox_head):
            logits, deltas = box_head(self.pooled(head.bbox_roi_extractor[stage], maps, rois))
            stages.append(logits)
            boxes = self.decoded(box_head, rois, deltas, size)
            if stage + 1 < head.num_stages:
                best = logits[:, :-1].argmax(1)
                chosen = boxes[:, 0]
                if boxes.shape[1] > 1:
                    chosen = boxes.gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
                rois = torch.cat([rois[:, :1], chosen], dim=1)
        return boxes, _scores(sum(stages) / len(stages))

    @staticmethod
    def decoded(box_head: nn.Module, rois: Tensor, deltas: Tensor, size: tuple) -> Tensor:
        """``(p, classes or 1, 4)``."""
        count = deltas.shape[1] // 4
        priors = rois[:, None, 1:].expand(-1, count, -1).reshape(-1, 4)
        boxes = box_head.bbox_coder.decode(priors, deltas.reshape(-1, 4), max_shape=size)
        return boxes.reshape(-1, count, 4)

    def best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(m, 5)``, ``(m,)``, and which of them there are ``(m,)``."""
        cfg = self.model.test_cfg.rcnn
        classes = scores.shape[1]
        boxes = boxes.expand(-1, classes, 4).reshape(-1, 4)
        score = scores.reshape(-1)
        score = score.where(score > cfg.score_thr, 0.0)
        label = torch.arange(classes, device=boxes.device).repeat(scores.shape[0])
        # As in MMDetection, boxes that are no candidates do not set the classes apart.
        candidates = boxes.where(score[:, None] > 0, 0.0)
        index, found = keep_best(candidates, score, label, cfg.nms, cfg.max_per_img)
        dets = torch.cat([boxes[index], score[index, None]], dim=1)
        return dets.where(found[:, None], 0.0), label[index].where(found, -1), found

    def masks(self, maps, dets: Tensor, labels: Tensor) -> Tensor:
        """Probabilities ``(m, h, w)`` within each box."""
        head = self.model.roi_head
        rois = torch.cat([torch.zeros_like(dets[:, :1]), dets[:, :4]], dim=1)
        cascade = isinstance(head, CascadeRoIHead)
        extractors = head.mask_roi_extractor if cascade else [head.mask_roi_extractor]
        found = []
        for extractor, mask_head in zip(
            extractors, head.mask_head if cascade else [head.mask_head], strict=True
        ):
            logits = mask_head(self.pooled(extractor, maps, rois))
            if logits.shape[1] > 1:
                chosen = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
                logits = logits.gather(1, chosen)
            found.append(logits[:, 0].sigmoid())
        return sum(found) / len(found)


def _scores(logits: Tensor) -> Tensor:
    """Of the classes, without that of the background."""
    return logits.softmax(-1)[:, :-1]


def _check(model: nn.Module) -> None:
    head, test = model.roi_head, model.test_cfg

    def expect(fits: bool, name: str, found: object, expected: str) -> None:
        if not fits:
            raise UsageError(f"{name}: the export knows {expected}, got {found}")

    expect(
        isinstance(model.rpn_head, RPNHead), "rpn_head", type(model.rpn_head).__name__, "RPNHead"
    )
    expect(
        type(head).predict_bbox in (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox),
        "roi_head",
        type(head).__name__,
        "StandardRoIHead and CascadeRoIHead",
    )
    expect(not head.with_shared_head, "roi_head.shared_head", "one", "heads without it")
    for name in ("rpn", "rcnn"):
        kind = test[name].nms.get("type", "nms")
        expect(kind == "nms", f"test_cfg.{name}.nms", kind, "nms")
    boxes = head.bbox_head if isinstance(head.bbox_head, nn.ModuleList) else [head.bbox_head]
    for box_head in boxes:
        expect(box_head.with_reg, "bbox_head", "one without boxes", "boxes")
        custom = getattr(box_head, "custom_activation", False)
        expect(not custom, "bbox_head.loss_cls", "an activation of its own", "softmax")
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        extractors = getattr(head, name, None) or []
        for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
            for layer in getattr(extractor, "roi_layers", ()):
                if isinstance(layer, RoIAlign):
                    usual = layer.aligned and layer.pool_mode == "avg"
                    expect(usual, f"{name}.roi_layer", layer, "aligned average pooling")
                if isinstance(layer, ops.DeformRoIPoolPack):
                    ratio = layer.sampling_ratio
                    expect(ratio > 0, f"{name}.roi_layer.sampling_ratio", ratio, "1 or more")
    if head.with_mask:
        masks = head.mask_head if isinstance(head.mask_head, nn.ModuleList) else [head.mask_head]
        for mask_head in masks:
            name = type(mask_head).__name__
            expect(isinstance(mask_head, FCNMaskHead), "mask_head", name, "FCNMaskHead")
