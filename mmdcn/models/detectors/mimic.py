"""A two-stage detector that trains with R-CNN feature mimicking; it needs MMDetection."""

from __future__ import annotations

from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import SampleList
from torch import Tensor

from mmdcn.models.heads.mimic import MimicRoIHead
from mmdcn.registry import MODELS


@MODELS.register_module()
class MimicRCNN(TwoStageDetector):
    """Faster or Mask R-CNN with a :class:`mmdcn.models.heads.mimic.MimicRoIHead`.

    Arguments as in MMDetection's ``TwoStageDetector``. A checkpoint of the same detector without
    mimicking loads but for ``roi_head.mimic_fc_cls``, which only training uses.

    Raises:
        TypeError: `roi_head` is another one.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.roi_head, MimicRoIHead):
            raise TypeError(
                f"roi_head: expected a mmdcn.MimicRoIHead, got {type(self.roi_head).__name__}"
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """Arguments and result as in the base class."""
        with self.roi_head.seeing(batch_inputs, self.extract_feat):
            return super().loss(batch_inputs, batch_data_samples)
