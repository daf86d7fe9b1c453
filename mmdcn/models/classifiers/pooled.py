"""A backbone, the mean of its last map, and one linear layer."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from mmdcn.registry import MODELS


@MODELS.register_module()
class PooledClassifier(BaseModel):
    """A classifier for the pre-training of any backbone, without MMPretrain.

    The keys of the backbone begin with ``backbone.``, as in detectors and segmentors, which load
    its checkpoints with ``init_cfg=dict(type="Pretrained", prefix="backbone.", checkpoint=...)``.

    Args:
        backbone: Config of a backbone that returns maps ``(N, C, H, W)``; the last one is taken.
        in_channels: C of that map.
        num_classes: Number of classes.
        data_preprocessor: Config, as MMEngine's ``ImgDataPreprocessor`` takes it.
        init_cfg: Config of the initialisation.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        num_classes: int,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(
        self, inputs: Tensor, data_samples: list[int] | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Classify images.

        Args:
            inputs: Images ``(N, 3, H, W)``.
            data_samples: N class indices; for the modes ``loss`` and ``predict``.
            mode: As in MMEngine's ``BaseModel``.

        Returns:
            The logits ``(N, num_classes)``; with the mode ``loss`` the cross-entropy and the share
            of right answers; with ``predict`` the answer and the label of each image.
        """
        logits = self.fc(self.backbone(inputs)[-1].mean(dim=(2, 3)))
        if mode == "tensor":
            return logits
        answers = logits.argmax(dim=1)
        if mode == "predict":
            return [
                dict(answer=answer, label=int(label))
                for answer, label in zip(answers.tolist(), data_samples, strict=True)
            ]
        target = torch.as_tensor(data_samples, device=logits.device)
        loss = functional.cross_entropy(logits, target)
        return dict(loss=loss, accuracy=(answers == target).float().mean())
