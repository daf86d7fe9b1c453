"""DINO with the details of the published InternImage models.

`DINO: DETR with Improved DeNoising Anchor Boxes <https://arxiv.org/abs/2203.03605>`_ (Zhang et al.,
2023).
"""

import torch
from mmdet.models.dense_heads import DINOHead as MMDetDINOHead
from mmdet.models.detectors import DINO as MMDetDINO
from mmdet.models.layers.transformer.utils import MLP, inverse_sigmoid
from mmdet.structures import SampleList
from torch import Tensor

from mmdcn.registry import MODELS

FEATURES = 128  # sine and cosine features per coordinate of a box


class QueryPositionHead(MLP):
    """Boxes' sine encodings -> positions of the decoder's queries.

    Reads 128 features per coordinate, as the published models have them. Some versions of
    MMDetection encode 256 features; these contain the 128, since the frequencies of a shorter
    encoding are every second one of an encoding that is twice as long.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__(4 * FEATURES, embed_dims, embed_dims, 2)

    def forward(self, encoding: Tensor) -> Tensor:
        """``(..., 4 F)`` -> ``(..., embed_dims)``, with F a multiple of 128."""
        # coordinate, frequency, sine or cosine
        encoding = encoding.unflatten(-1, (4, FEATURES // 2, -1, 2))[..., 0, :]
        return super().forward(encoding.flatten(-3))


@MODELS.register_module()
class DINO(MMDetDINO):
    """MMDetection's DINO; official InternImage checkpoints fit after conversion of their keys."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.decoder.ref_point_head = QueryPositionHead(self.embed_dims)


@MODELS.register_module()
class DINOHead(MMDetDINOHead):
    """MMDetection's head, with the official limit on boxes at the border of the image."""

    eps = 1e-3  # distance from 0 and 1 at which coordinates are clipped; 1e-5 in MMDetection

    def forward(self, hidden_states: Tensor, references: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Classify the queries and refine their boxes.

        Args:
            hidden_states: ``(layers, N, queries, C)``.
            references: The box of each query that a layer starts from, ``(N, queries, 4)`` as
                normalised (cx, cy, w, h), for each layer.

        Returns:
            Logits ``(layers, N, queries, classes)`` and boxes ``(layers, N, queries, 4)``.
        """
        logits, boxes = [], []
        for layer, state in enumerate(hidden_states):
            reference = inverse_sigmoid(references[layer], eps=self.eps)
            logits.append(self.cls_branches[layer](state))
            boxes.append((self.reg_branches[layer](state) + reference).sigmoid())
        return torch.stack(logits), torch.stack(boxes)


@MODELS.register_module()
class CBDINO(DINO):
    """DINO on a composite backbone: training detects objects on the features of both backbones."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses on the features of the first backbone, and on those of the second one.

        Args:
            batch_inputs: ``(N, 3, H, W)``.
            batch_data_samples: N samples; all of them are used twice.
        """
        # the backbone's outputs have both in one batch
        return super().loss(batch_inputs, [*batch_data_samples, *batch_data_samples])


@MODELS.register_module()
class CBDINOHead(DINOHead):
    """Head of :class:`CBDINO`.

    Args:
        cb_first_weight: Factor on the losses of the first backbone's features.
    """

    def __init__(self, *args, cb_first_weight: float = 0.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.cb_first_weight = cb_first_weight

    def loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        enc_outputs_class: Tensor,
        enc_outputs_coord: Tensor,
        batch_data_samples: SampleList,
        dn_meta: dict[str, int],
    ) -> dict[str, Tensor]:
        """Losses of MMDetection's head, for each half of the batch; arguments as there."""
        half = len(batch_data_samples) // 2
        losses = {}
        for index, weight in enumerate((self.cb_first_weight, 1.0)):
            part = slice(index * half, (index + 1) * half)
            of_part = super().loss(
                hidden_states[:, part],
                [reference[part] for reference in references],
                enc_outputs_class[part],
                enc_outputs_coord[part],
                batch_data_samples[part],
                dn_meta,
            )
            losses.update({f"{name}_{index}": weight * loss for name, loss in of_part.items()})
        return losses
