"""A detector or segmentor of OpenMMLab, one image, and the nodes in it that people ask about."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from .effective import EffectiveSampling, effective_sampling, receptive_field
from .recording import Sampling, record
from .saliency import SaliencyRegion, saliency_region


@dataclasses.dataclass
class Node:
    """A node of a model, and the object that it is about.

    Attributes:
        title: for people.
        run: part of the model up to the node, called with the image.
        response: of what `run` returns to the node's vector, for the saliency region.
        scalar: of the same to the number whose gradient is taken.
        place: (x, y) in pixels of the input.
        shape: ``(H, W)`` bool, the object in pixels of the input; None if there is none.
    """

    title: str
    run: Callable[[Tensor], Any]
    response: Callable[[Any], Tensor]
    scalar: Callable[[Any], Tensor]
    place: tuple[float, float]
    shape: Tensor | None


class Subject:
    """A model and an image.

    Args:
        model: with its config in ``model.cfg``; it is put into eval mode.
        image: ``(H, W, 3)`` BGR, uint8.
        scope: ``"mmdet"`` or ``"mmseg"``.

    Attributes:
        inputs: what the model gets, ``(1, 3, H, W)``, normalised and padded.
        size: ``(h, w)`` of the image in it, without padding.
        picture: ``(h, w, 3)`` RGB, uint8, the image in this size.
        prediction: the model's own, in pixels of the original image.
    """

    def __init__(self, model: nn.Module, image: np.ndarray, scope: str) -> None:
        self.model, self.image, self.scope = model.eval(), image, scope
        with DefaultScope.overwrite_default_scope(scope), torch.no_grad():
            self.data = Compose(_pipeline(model.cfg, scope))(dict(img=image, img_id=0))
            batch = model.data_preprocessor(pseudo_collate([self.data]), False)
            (self.prediction,) = model.test_step(pseudo_collate([self.data]))
        self.inputs, self.samples = batch["inputs"], batch["data_samples"]
        self.size = tuple(self.samples[0].img_shape[:2])
        self.picture = cv2.resize(image, self.size[::-1])[..., ::-1]

    @property
    def scale(self) -> tuple[float, float]:
        """From (x, y) in the original image to the input."""
        return self.size[1] / self.image.shape[1], self.size[0] / self.image.shape[0]

    @property
    def classes(self) -> Sequence[str]:
        return self.model.dataset_meta["classes"]

    @cached_property
    def labels(self) -> Tensor | None:
        """Predicted label map ``(h, w)`` in pixels of the input; None for detectors."""
        if "pred_sem_seg" not in self.prediction:
            return None
        found = self.prediction.pred_sem_seg.data[0].cpu().numpy().astype(np.float32)
        found = cv2.resize(found, self.size[::-1], interpolation=cv2.INTER_NEAREST)
        return torch.from_numpy(found).long()

    def detections(self, threshold: float) -> Any:
        """Predicted objects with at least that score, the best first; empty for segmentors."""
        if "pred_instances" not in self.prediction:
            return []
        objects = self.prediction.pred_instances
        objects = objects[objects.scores >= threshold]
        return objects[objects.scores.argsort(descending=True)]

    # Nodes

    def point(self, x: float, y: float, threshold: float = 0.3) -> Node:
        """The node at a pixel of the original image.

        Of a segmentor, the logits of that pixel, and of these that of the predicted class; its
        object is the connected piece of this class. Of a detector, the last map of the backbone at
        that place, and the slope of its length; its object is the best detection there.

        Raises:
            ValueError: the pixel lies outside of the image.
        """
        height, width = self.image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point: expected a pixel of {width}x{height}, got ({x:g}, {y:g})")
        place = tuple((p + 0.5) * s - 0.5 for p, s in zip((x, y), self.scale, strict=True))
        column, row = (
            min(max(round(p), 0), size - 1) for p, size in zip(place, self.size[::-1], strict=True)
        )
        if self.labels is not None:
            label = int(self.labels[row, column])

            def pixel(logits: Tensor) -> Tensor:
                return logits[0, :, row, column]

            return Node(
                f"'{self.classes[label]}' at ({x:g}, {y:g})",
                lambda image: self.model.encode_decode(image, self._metas),
                pixel,
                # A model of two classes may have one logit for both.
                lambda logits: pixel(logits)[min(label, logits.shape[1] - 1)],
                place,
                self._piece(row, column),
            )

        def cell(maps: Sequence[Tensor]) -> Tensor:
            last = maps[-1]
            v = int((place[1] + 0.5) * last.shape[2] / self.inputs.shape[2])
            u = int((place[0] + 0.5) * last.shape[3] / self.inputs.shape[3])
            return last[0, :, v, u]

        found = self.detections(threshold)
        boxes = found.bboxes.tolist() if len(found) else []
        inside = [k for k, (x1, y1, x2, y2) in enumerate(boxes) if x1 <= x <= x2 and y1 <= y <= y2]
        return Node(
            f"backbone at ({x:g}, {y:g})",
            lambda image: self.model.backbone(image),
            cell,
            lambda maps: _length(cell(maps)),
            place,
            self.shape_of(found, inside[0]) if inside else None,
        )

    def detection(self, index: int, threshold: float = 0.3) -> Node:
        """The head of a detection, counted from 0 by score.

        Raises:
            ValueError: there are not so many, or the model has no RoI head.
        """
        found = self.detections(threshold)
        if not 0 <= index < len(found):
            raise ValueError(
                f"detection: there are {len(found)} with a score of at least {threshold:g}, "
                f"got index {index}"
            )
        label = int(found.labels[index])
        title = f"{self.classes[label]} {float(found.scores[index]):.2f}"
        shape = self.shape_of(found, index)
        return self._roi_node(title, found.bboxes[index], label, shape)

    def box(self, box: Sequence[float]) -> Node:
        """The head of a box (x1, y1, x2, y2) in pixels of the original image.

        Raises:
            ValueError: the box is empty, or the model has no RoI head.
        """
        corners = torch.tensor([float(value) for value in box])
        if corners.shape != (4,) or not (corners[2:] > corners[:2]).all():
            raise ValueError(f"box: expected x1 < x2 and y1 < y2, got {tuple(box)}")
        return self._roi_node("box", corners, None, self._box_shape(corners))

    def _roi_node(self, title: str, box: Tensor, label: int | None, shape: Tensor) -> Node:
        head = getattr(self.model, "roi_head", None)
        if head is None:
            raise ValueError(
                f"{type(self.model).__name__} has no RoI head; choose a point, not a box"
            )
        corners = box.to(self.inputs) * self.inputs.new_tensor([*self.scale, *self.scale])
        rois = torch.cat([corners.new_zeros(1), corners])[None]
        stages = getattr(head, "num_stages", None)

        def scores(image: Tensor) -> Tensor:
            features = self.model.extract_feat(image)
            if stages is not None:
                return head._bbox_forward(stages - 1, features, rois)["cls_score"]
            if hasattr(head, "maps"):  # R-FCN pools maps of its own
                features = head.bbox_head.maps(features[head.level])
            return head._bbox_forward(features, rois)["cls_score"]

        if label is None:
            with torch.no_grad():
                label = int(scores(self.inputs)[0].argmax())
            names = [*self.classes, "background"]
            title = f"box: '{names[min(label, len(names) - 1)]}'"
        place = ((corners[0] + corners[2]).item() / 2, (corners[1] + corners[3]).item() / 2)
        return Node(title, scores, lambda s: s[0], lambda s: s[0, label], place, shape)

    @property
    def _metas(self) -> list[dict]:
        return [sample.metainfo for sample in self.samples]

    def _piece(self, row: int, column: int) -> Tensor:
        same = (self.labels == self.labels[row, column]).numpy().astype(np.uint8)
        _, pieces = cv2.connectedComponents(same)
        return torch.from_numpy(pieces == pieces[row, column])

    def _box_shape(self, box: Tensor) -> Tensor:
        x1, y1, x2, y2 = (
            (box.cpu() * torch.tensor([*self.scale, *self.scale])).round().int().tolist()
        )
        shape = torch.zeros(self.size, dtype=torch.bool)
        shape[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
        return shape

    def shape_of(self, objects: Any, index: int) -> Tensor:
        """An object as ``(h, w)`` bool in pixels of the input: its mask, or its box."""
        if "masks" not in objects:
            return self._box_shape(objects.bboxes[index])
        mask = np.asarray(objects.masks[index].cpu(), dtype=np.uint8)
        return torch.from_numpy(
            cv2.resize(mask, self.size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        )

    # Analyses, all in pixels of the input without its padding

    def deformable_layers(self) -> list[Sampling]:
        """All calls of deformable operators in a prediction, in their order."""
        data = pseudo_collate([self.data])
        with DefaultScope.overwrite_default_scope(self.scope), torch.no_grad():
            _, found = record(self.model, lambda: self.model.test_step(data))
        return found

    def sampling(
        self, node: Node, plain: Collection[str] = (), direct: bool = True
    ) -> list[EffectiveSampling]:
        part = _Part(self.model, node.run)
        return effective_sampling(part, self.inputs, node.scalar, plain, direct=direct)

    def receptive_field(self, node: Node) -> Tensor:
        field = receptive_field(_Part(self.model, node.run), self.inputs, node.scalar)[0]
        return field[: self.size[0], : self.size[1]].cpu()

    def region(self, node: Node, **options: Any) -> SaliencyRegion:
        region = saliency_region(_Part(self.model, node.run), self.inputs, node.response, **options)
        region.mask = region.mask[: self.size[0], : self.size[1]].cpu()
        region.area = region.mask.float().mean().item()
        return region


class _Part(nn.Module):
    """The part of a model that `run` calls, under the names of the model."""

    def __init__(self, model: nn.Module, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self._modules.update(model._modules)
        self.run = run

    def forward(self, image: Tensor) -> Any:
        return self.run(image)


def _length(vector: Tensor) -> Tensor:
    """Its length, which has a gradient everywhere."""
    return (vector * vector.detach()).sum() / vector.detach().norm().clamp(min=1e-12)


def _pipeline(cfg: Any, scope: str) -> list[dict]:
    """The steps of testing, for an image that is read, without annotations."""
    steps = cfg.get("test_pipeline") or cfg.test_dataloader.dataset.pipeline
    steps = [copy.deepcopy(dict(step)) for step in steps]
    steps = [step for step in steps if not step["type"].endswith("LoadAnnotations")]
    steps[0]["type"] = f"{scope}.LoadImageFromNDArray"
    steps[0] = {key: value for key, value in steps[0].items() if key in ("type", "to_float32")}
    if scope == "mmdet":
        wanted = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
        steps[-1]["meta_keys"] = wanted
    return steps
