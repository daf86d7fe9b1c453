"""DINO with the queries of the published InternImage models; the heads are in `heads/dino.py`.

`DINO: DETR with Improved DeNoising Anchor Boxes <https://arxiv.org/abs/2203.03605>`_ (Zhang et al.,
2023).
"""

from mmdet.models.detectors import DINO as MMDetDINO
from mmdet.models.layers.transformer.utils import MLP
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
