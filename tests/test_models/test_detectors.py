"""What differs from MMDetection's DINO, and the norm of FlashInternImage's FPN."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("mmdet")

from mmdcn.models.detectors.dino import QueryPositionHead  # noqa: E402
from mmdcn.models.heads.dino import CBDINOHead, DINOHead  # noqa: E402


def sine_encoding(boxes, features):
    """``(N, Q, 4)`` boxes (cx, cy, w, h) -> features of y, x, w and h, one after the other."""
    parts = []
    for coordinate in (1, 0, 2, 3):
        for i in range(0, features, 2):
            angle = 2 * math.pi * boxes[..., coordinate] / 10000 ** (i / features)
            parts += [angle.sin(), angle.cos()]
    return torch.stack(parts, -1)


@pytest.mark.parametrize("features", [128, 256])
def test_positions_come_from_128_features_per_coordinate(features):
    torch.manual_seed(0)
    head = QueryPositionHead(256).double()
    assert head.layers[0].weight.shape == (256, 512)
    boxes = torch.rand(2, 7, 4, dtype=torch.float64)
    weights = [(layer.weight, layer.bias) for layer in head.layers]
    expected = F.linear(F.linear(sine_encoding(boxes, 128), *weights[0]).relu(), *weights[1])
    torch.testing.assert_close(head(sine_encoding(boxes, features)), expected)


def test_encoding_is_that_of_mmdet():
    # Which of the two sizes the installed version uses; the head takes both.
    from mmdet.models.layers.transformer.utils import coordinate_to_encoding

    boxes = torch.rand(2, 7, 4)
    for features in (128, 256):
        encoding = coordinate_to_encoding(boxes, num_feats=features)
        expected = sine_encoding(boxes, features)
        torch.testing.assert_close(encoding, expected, rtol=1e-4, atol=1e-4)


def test_boxes_are_clipped_a_thousandth_from_the_border():
    torch.manual_seed(0)
    head = DINOHead(
        num_classes=3,
        embed_dims=16,
        num_pred_layer=2,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True),
        as_two_stage=True,
    )
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    states = torch.randn(2, 1, 5, 16)
    references = [torch.rand(1, 5, 4) for _ in range(3)]
    references[0][0, 0] = torch.tensor([0.0, 1.0, 0.0004, 0.9999])
    logits, boxes = head(states, references)
    assert logits.shape == (2, 1, 5, 3) and boxes.shape == (2, 1, 5, 4)
    for layer in range(2):
        refined = head.reg_branches[layer](states[layer])
        x = references[layer]
        start = torch.log(x.clamp(min=1e-3) / (1 - x).clamp(min=1e-3))
        torch.testing.assert_close(boxes[layer], (refined + start).sigmoid())
        torch.testing.assert_close(logits[layer], head.cls_branches[layer](states[layer]))


def test_losses_of_a_composite_backbone():
    # Each half of the batch has the losses of MMDetection's head; the first half counts less.
    from mmdet.structures import DetDataSample
    from mmengine.registry import DefaultScope
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    match_costs = [dict(type="FocalLossCost"), dict(type="BBoxL1Cost", box_format="xywh")]
    args = dict(
        num_classes=3,
        embed_dims=16,
        num_pred_layer=2,
        as_two_stage=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
        train_cfg=dict(assigner=dict(type="HungarianAssigner", match_costs=match_costs)),
    )
    with DefaultScope.overwrite_default_scope("mmdet"):
        composite = CBDINOHead(**copy.deepcopy(args), cb_first_weight=0.25)
        single = DINOHead(**copy.deepcopy(args))
    for parameter in composite.parameters():
        nn.init.normal_(parameter, std=0.3)
    single.load_state_dict(composite.state_dict())

    samples = []
    for boxes in ([[4.0, 6, 30, 40]], [[10.0, 3, 50, 20], [1, 2, 60, 50]]):
        instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.arange(len(boxes)))
        sample = DetDataSample(metainfo=dict(img_shape=(64, 96)), gt_instances=instances)
        samples.append(sample)
    groups, queries = 3, 3 * 2 * 2 + 5  # two boxes at most, as positives and negatives
    states = torch.randn(2, 4, queries, 16)
    references = [torch.rand(4, queries, 4) for _ in range(3)]
    scores, boxes = torch.randn(4, 9, 3), torch.rand(4, 9, 4)
    meta = dict(num_denoising_queries=12, num_denoising_groups=groups)
    losses = composite.loss(states, references, scores, boxes, [*samples, *samples], meta)
    expected = {}
    for index, weight, part in ((0, 0.25, [0, 1]), (1, 1.0, [2, 3])):
        of_part = single.loss(
            states[:, part], [r[part] for r in references], scores[part], boxes[part], samples, meta
        )
        expected |= {f"{name}_{index}": weight * value for name, value in of_part.items()}
    assert {"loss_cls_0", "d0.dn_loss_iou_1", "enc_loss_bbox_1"} <= losses.keys()
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[name], value)


def test_layer_norm_of_feature_maps():
    from mmcv.cnn import ConvModule

    torch.manual_seed(0)
    module = ConvModule(4, 6, 1, norm_cfg=dict(type="mmdcn.LN2d"), act_cfg=None)
    assert set(module.state_dict()) == {"conv.weight", "ln.weight", "ln.bias"}
    assert module.ln.eps == 1e-5
    nn.init.normal_(module.ln.weight)
    nn.init.normal_(module.ln.bias)
    x = torch.randn(2, 4, 5, 3)
    y = F.conv2d(x, module.conv.weight)
    mean, var = y.mean(1, keepdim=True), y.var(1, keepdim=True, unbiased=False)
    scale, shift = (p[:, None, None] for p in (module.ln.weight, module.ln.bias))
    torch.testing.assert_close(module(x), (y - mean) / (var + 1e-5).sqrt() * scale + shift)
