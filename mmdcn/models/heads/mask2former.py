"""Head of Mask2Former, with the details of the published InternImage models.

`Masked-attention Mask Transformer for Universal Image Segmentation
<https://arxiv.org/abs/2112.01527>`_ (Cheng et al., CVPR 2022). Importing this module needs
MMSegmentation and MMDetection; the other segmentation models need MMSegmentation only.
"""

import torch
from mmseg.models.decode_heads import Mask2FormerHead as MMSegMask2FormerHead
from mmseg.structures import SegDataSample
from mmseg.utils import ConfigType
from torch import Tensor
from torch.nn import functional as F

from mmdcn.models.layers.deformable_attention import UnnormalizedDeformableAttention
from mmdcn.registry import MODELS

try:
    import mmdet.models  # noqa: F401 - the pixel decoder and the losses
except ModuleNotFoundError as error:
    raise ImportError(
        "Mask2Former needs MMDetection, which is not installed (the distribution is called mmdet "
        "or onedl-mmdetection); UPerNet, FCN and DeepLabV3 do without it"
    ) from error


@MODELS.register_module()
class Mask2FormerHead(MMSegMask2FormerHead):
    """MMSegmentation's head, with the official order of steps in prediction.

    Masks become probabilities and are summed over the queries at the resolution of the head, and
    the sums are enlarged; MMSegmentation enlarges the logits of each mask.

    Args:
        normalize_attention: softmax over the weights of each query's points in the pixel decoder.
            One model of DCNv4's authors, ``nsmx``, does without it.
        args, kwargs: as in MMSegmentation's ``Mask2FormerHead``.
    """

    def __init__(self, *args, normalize_attention: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not normalize_attention:
            for layer in self.pixel_decoder.encoder.layers:
                layer.self_attn = UnnormalizedDeformableAttention(**layer.self_attn_cfg)

    def predict(
        self, x: tuple[Tensor, ...], batch_img_metas: list[dict], test_cfg: ConfigType
    ) -> Tensor:
        """Scores of the classes, each in [0, queries].

        Args:
            x: Feature maps ``(N, C_i, H / s_i, W / s_i)`` of the backbone.
            batch_img_metas: ``img_shape`` of each image, and ``pad_shape`` if it was padded.
            test_cfg: Not used.

        Returns:
            ``(N, classes, H, W)``, in the size of the padded image.
        """
        samples = [SegDataSample(metainfo=meta) for meta in batch_img_metas]
        class_logits, mask_logits = (layers[-1] for layers in self(x, samples))
        classes = class_logits.softmax(-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, mask_logits.sigmoid())
        size = batch_img_metas[0].get("pad_shape", batch_img_metas[0]["img_shape"])
        return F.interpolate(scores, size=size[:2], mode="bilinear", align_corners=False)
