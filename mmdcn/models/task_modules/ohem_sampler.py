"""Online hard example mining as R-FCN does it."""

from __future__ import annotations

import torch
from mmdet.models.task_modules import AssignResult, BaseSampler, SamplingResult
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmdcn.registry import TASK_UTILS


@TASK_UTILS.register_module()
class OHEMSampler(BaseSampler):
    """Takes the regions of an image whose loss is largest, as `R-FCN
    <https://arxiv.org/abs/1605.06409>`_ (Dai et al., 2016) and `Deformable ConvNets
    <https://arxiv.org/abs/1703.06211>`_ (Dai et al., 2017) do.

    All regions of the image are ranked together by the sum of their classification and box loss.
    MMDetection's sampler of this name ranks objects and background apart, by their classification
    loss, and keeps a fixed share of objects.

    Args:
        num: regions to take from an image.
        context: the RoI head, which has one stage; MMDetection passes it.
        add_gt_as_proposals: objects are regions, too.

    Raises:
        ValueError: The RoI head has several stages.
    """

    def __init__(self, num: int, context, add_gt_as_proposals: bool = True) -> None:
        super().__init__(num, pos_fraction=1.0, add_gt_as_proposals=add_gt_as_proposals)
        if hasattr(context, "num_stages"):
            raise ValueError(
                f"OHEMSampler: expected a RoI head with one stage, got {type(context).__name__}"
            )
        self.context = context

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        feats: list[Tensor],
        **kwargs,
    ) -> SamplingResult:
        """Choose among the ``pred_instances.priors`` ``(R, 4)`` of one image.

        Args:
            assign_result: which object each of them is.
            pred_instances: the regions.
            gt_instances: the objects.
            feats: the feature maps of this image, as the RoI head takes them.
        """
        objects = gt_instances.bboxes
        return super().sample(
            assign_result, pred_instances, gt_instances, feats=feats, objects=objects
        )

    # The base class calls this first, and the next one after it.

    def _sample_pos(
        self, assign_result, num_expected, bboxes: Tensor, feats: list[Tensor], objects: Tensor
    ) -> Tensor:
        self._hard = self._hardest(assign_result, bboxes, feats, objects)
        return self._hard[assign_result.gt_inds[self._hard] > 0]

    def _sample_neg(self, assign_result, num_expected, **kwargs) -> Tensor:
        return self._hard[assign_result.gt_inds[self._hard] == 0]

    @torch.no_grad()
    def _hardest(
        self, assign_result: AssignResult, bboxes: Tensor, feats: list[Tensor], objects: Tensor
    ) -> Tensor:
        """Indices of the regions with the largest loss, at most ``num``."""
        positive, negative = (
            condition.nonzero()[:, 0]
            for condition in (assign_result.gt_inds > 0, assign_result.gt_inds == 0)
        )
        regions = torch.cat([positive, negative])
        if len(regions) <= self.num:
            return regions
        flags = torch.zeros_like(assign_result.gt_inds, dtype=torch.uint8)
        everything = SamplingResult(positive, negative, bboxes, objects, assign_result, flags)
        rois, head = bbox2roi([bboxes[regions]]), self.context.bbox_head
        predicted = self.context._bbox_forward(feats, rois)
        cls_score, bbox_pred = predicted["cls_score"], predicted["bbox_pred"]
        targets = head.get_targets([everything], self.context.train_cfg)
        losses = head.loss(cls_score, bbox_pred, rois, *targets, reduction_override="none")
        loss = losses["loss_cls"].clone()
        if len(positive):
            loss[: len(positive)] += losses["loss_bbox"].reshape(len(positive), -1).sum(1)
        return regions[loss.topk(self.num).indices]
