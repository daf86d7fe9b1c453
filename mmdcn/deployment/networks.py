"""Segmentors and classifiers as functions of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdcn.engine.errors import UsageError


class Network(nn.Module):
    """A model with, if wanted, the normalisation of its ``data_preprocessor`` before it.

    Args:
        model: Of a config, in evaluation mode.
        normalize: Whether the input is an image as OpenCV reads it: BGR, 0 to 255. Otherwise it is
            normalised already, in the order of channels that the model expects.
    """

    outputs: tuple[str, ...] = ("output",)

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        before = model.data_preprocessor
        # MMEngine's, MMSegmentation's and MMPretrain's names of the same.
        names = ("_channel_conversion", "channel_conversion", "to_rgb")
        self.flip = any(getattr(before, name, False) for name in names)
        if getattr(before, "_enable_normalize", False):
            self.register_buffer("mean", before.mean.reshape(1, -1, 1, 1).float())
            self.register_buffer("std", before.std.reshape(1, -1, 1, 1).float())
        else:
            self.mean = self.std = None

    def normalisation(self) -> dict:
        """What the caller has to do to an image that OpenCV has read."""
        return dict(
            to_rgb=self.flip,
            mean=[0.0] * 3 if self.mean is None else self.mean.flatten().tolist(),
            std=[1.0] * 3 if self.std is None else self.std.flatten().tolist(),
        )

    def prepared(self, image: Tensor) -> Tensor:
        """What the backbone gets."""
        if not self.normalize:
            return image
        if self.flip:
            image = image.flip(1)
        return image if self.mean is None else (image - self.mean) / self.std


class Segmentor(Network):
    """A segmentor of MMSegmentation that sees the whole image.

    Args:
        model, normalize: As in :class:`Network`.
        logits: Return the scores of the classes and not the best one.
    """

    def __init__(self, model: nn.Module, normalize: bool, logits: bool = False) -> None:
        super().__init__(model, normalize)
        self.logits = logits
        if not hasattr(model, "decode_head") or isinstance(model.decode_head, nn.ModuleList):
            raise UsageError(
                f"{type(model).__name__}: expected a segmentor with one decode_head, whose "
                "prediction is exported"
            )

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` -> labels ``(N, H, W)``, int64, or scores ``(N, classes, H, W)``."""
        height, width = image.shape[2:]
        size = (height, width)
        meta = dict(img_shape=size, pad_shape=size, batch_input_shape=size)
        features = self.model.extract_feat(self.prepared(image))
        head = self.model.decode_head
        scores = head.predict(features, [meta] * image.shape[0], self.model.test_cfg)
        if self.logits:
            return scores
        if head.out_channels == 1:
            return (scores[:, 0].sigmoid() > head.threshold).long()
        return scores.argmax(dim=1)


class Classifier(Network):
    """A classifier of MMPretrain."""

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` -> probabilities ``(N, classes)``."""
        scores: Any = self.model(self.prepared(image), mode="tensor")
        return torch.softmax(scores, dim=1)
