"""R-CNN feature mimicking; this module needs MMDetection.

`Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., CVPR 2019), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from torch import Tensor, nn
from torch.nn import functional as F

from mmdcn.registry import MODELS


def crop_and_resize(images: Tensor, rois: Tensor, size: int) -> Tensor:
    """Patches of images, bilinearly resampled; 0 outside an image.

    Args:
        images: ``(N, C, H, W)``.
        rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2) in pixels, whose borders are those
            of the patches.
        size: Height and width S of a patch.

    Returns:
        ``(R, C, S, S)``.
    """
    middles = (torch.arange(size, device=rois.device, dtype=rois.dtype) + 0.5) / size
    x1, y1, x2, y2 = rois[:, 1:, None].unbind(1)
    x, y = x1 + middles * (x2 - x1), y1 + middles * (y2 - y1)  # (R, S)
    height, width = images.shape[-2:]
    x, y = 2 * x / width - 1, 2 * y / height - 1
    grid = torch.stack(
        [x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1
    ).to(images.dtype)
    patches = images.new_empty(len(rois), images.shape[1], size, size)
    for index in rois[:, 0].unique().long().tolist():
        chosen = rois[:, 0] == index
        image = images[index].expand(int(chosen.sum()), -1, -1, -1)
        patches[chosen] = F.grid_sample(image, grid[chosen], align_corners=False)
    return patches


@MODELS.register_module()
class MimicRoIHead(StandardRoIHead):
    """A RoI head whose features learn to be those of the cropped and enlarged object.

    In training, some positive proposals of each image are also cut out of it and resized. The same
    backbone, neck, RoI pooling and shared layers compute the features of each patch, with the whole
    patch as the region; an own classification layer reads them. Two losses are added:
    ``loss_mimic``, the mean of 1 - cosine of the features of proposal and patch, and
    ``loss_mimic_cls``, the cross-entropy of the patches. Inference is that of the base class.

    Of the paper are the 32 proposals of an image, the patches of 224 x 224 pixels, the factors of
    0.1, and the features: 1024 channels after the second of two layers. These are this project's
    choices, as the paper does not tell: features are taken after ReLU, losses are means over the
    proposals, and the gradient reaches both sides.

    It is to be the ``roi_head`` of a :class:`mmdcn.models.detectors.MimicRCNN`.

    Args:
        mimic_num: The most proposals of an image; positive ones by the assigner of ``train_cfg``.
        mimic_size: Height and width of a patch.
        mimic_weight: Factor of both losses.
        args, kwargs: As in MMDetection's ``StandardRoIHead``; its ``bbox_head`` has shared fully
            connected layers.

    Raises:
        ValueError: The box head has none.
    """

    def __init__(
        self,
        *args,
        mimic_num: int = 32,
        mimic_size: int = 224,
        mimic_weight: float = 0.1,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        head = self.bbox_head
        if not getattr(head, "num_shared_fcs", 0):
            raise ValueError(
                "bbox_head: expected shared fully connected layers, whose output is mimicked, got "
                f"{type(head).__name__} without them"
            )
        self.mimic_num, self.mimic_size, self.mimic_weight = mimic_num, mimic_size, mimic_weight
        self.mimic_fc_cls = nn.Linear(head.fc_out_channels, head.num_classes + 1)
        nn.init.normal_(self.mimic_fc_cls.weight, std=0.01)
        nn.init.zeros_(self.mimic_fc_cls.bias)
        self._images: Tensor | None = None
        self._network: Callable[[Tensor], Sequence[Tensor]] | None = None

    @contextmanager
    def seeing(
        self, images: Tensor, network: Callable[[Tensor], Sequence[Tensor]]
    ) -> Iterator[None]:
        """Give :meth:`loss` what only the detector has.

        Args:
            images: ``(N, 3, H, W)``, the batch.
            network: Computes the maps of such a batch.
        """
        self._images, self._network = images, network
        try:
            yield
        finally:
            self._images = self._network = None

    def loss(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
    ) -> dict[str, Tensor]:
        """The losses of the base class and those of mimicking; arguments as there."""
        if self._images is None:
            raise RuntimeError("MimicRoIHead has to be the roi_head of a mmdcn.MimicRCNN")
        losses = super().loss(x, rpn_results_list, batch_data_samples)
        rois, labels = self._choose(rpn_results_list, batch_data_samples)
        return losses | self.mimic_loss(x, rois, labels)

    def _choose(
        self, proposals: InstanceList, batch_data_samples: SampleList
    ) -> tuple[Tensor, Tensor]:
        """Some positive proposals of each image, ``(R, 5)``, and their classes, ``(R,)``."""
        boxes, labels = [], []
        for found, sample in zip(proposals, batch_data_samples, strict=True):
            truth = sample.gt_instances
            assigned = self.bbox_assigner.assign(found, truth, sample.get("ignored_instances"))
            positive = (assigned.gt_inds > 0).nonzero()[:, 0]
            positive = positive[torch.randperm(len(positive), device=positive.device)]
            positive = positive[: self.mimic_num]
            boxes.append(found.priors[positive])
            labels.append(truth.labels[assigned.gt_inds[positive] - 1])
        return bbox2roi(boxes), torch.cat(labels)

    def mimic_loss(self, x: Sequence[Tensor], rois: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Both losses of some regions.

        Args:
            x: Maps of the images.
            rois: ``(R, 5)``, rows of (batch index, x1, y1, x2, y2); R may be 0.
            labels: Class of each region, ``(R,)``.
        """
        if not len(rois):  # with a gradient of 0 for the layer that has nothing to do
            nothing = sum(p.sum() for p in self.mimic_fc_cls.parameters()) * 0
            return dict(loss_mimic=nothing, loss_mimic_cls=nothing)
        size = self.mimic_size
        patches = crop_and_resize(self._images, rois, size)
        whole = rois.new_tensor([0, 0, 0, size, size]).repeat(len(rois), 1)
        whole[:, 0] = torch.arange(len(rois))
        ours = self._features(x, rois)
        theirs = self._features(self._network(patches), whole)
        mimic = (1 - F.cosine_similarity(ours, theirs)).mean()
        classes = F.cross_entropy(self.mimic_fc_cls(theirs), labels)
        return dict(
            loss_mimic=self.mimic_weight * mimic, loss_mimic_cls=self.mimic_weight * classes
        )

    def _features(self, x: Sequence[Tensor], rois: Tensor) -> Tensor:
        """The output of the last shared layer, ``(R, fc_out_channels)``."""
        extractor, head = self.bbox_roi_extractor, self.bbox_head
        features = extractor(x[: extractor.num_inputs], rois)
        if self.with_shared_head:
            features = self.shared_head(features)
        for conv in head.shared_convs:
            features = conv(features)
        if head.with_avg_pool:
            features = head.avg_pool(features)
        features = features.flatten(1)
        for fc in head.shared_fcs:
            features = head.relu(fc(features))
        return features
