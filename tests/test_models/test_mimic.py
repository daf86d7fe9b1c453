"""R-CNN feature mimicking: patches, losses against loops, who gets a gradient, inference."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmdet")
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from mmdcn.models.detectors import MimicRCNN  # noqa: E402
from mmdcn.models.heads.mimic import crop_and_resize  # noqa: E402

SIZE = 32


def config(pooling="DeformRoIPoolPack", **mimic):
    width = 8
    extractor = dict(
        type="mmdcn.SingleRoIExtractor",
        roi_layer=dict(type=pooling, output_size=3, output_channels=width, deform_fc_channels=8),
        out_channels=width,
        featmap_strides=[8],
    )
    loss = dict(type="CrossEntropyLoss", loss_weight=1.0)
    coder = dict(type="DeltaXYWHBBoxCoder")
    assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)
    sampler = dict(type="RandomSampler", num=8, pos_fraction=0.5, add_gt_as_proposals=True)
    return dict(
        type="mmdcn.MimicRCNN",
        backbone=dict(
            type="mmdcn.Deformable",
            model=dict(
                type="mmdet.ResNet",
                depth=18,
                base_channels=4,
                out_indices=(1,),
                norm_eval=True,
                zero_init_residual=False,
            ),
            layers=r"layer2\..*conv2",
        ),
        rpn_head=dict(
            type="RPNHead",
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(type="AnchorGenerator", scales=[2.0], ratios=[1.0], strides=[8]),
            bbox_coder=coder,
            loss_cls=loss | dict(use_sigmoid=True),
            loss_bbox=dict(type="L1Loss"),
        ),
        roi_head=dict(
            type="mmdcn.MimicRoIHead",
            bbox_roi_extractor=extractor,
            bbox_head=dict(
                type="Shared2FCBBoxHead",
                in_channels=width,
                fc_out_channels=16,
                roi_feat_size=3,
                num_classes=2,
                bbox_coder=coder,
                loss_cls=loss,
                loss_bbox=dict(type="L1Loss"),
            ),
            **mimic,
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner,
                sampler=sampler | dict(add_gt_as_proposals=False),
                allowed_border=-1,
                pos_weight=-1,
            ),
            rpn_proposal=dict(nms_pre=30, max_per_img=10, nms=dict(type="nms", iou_threshold=0.9)),
            rcnn=dict(assigner=assigner, sampler=sampler, pos_weight=-1),
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=30, max_per_img=10, nms=dict(type="nms", iou_threshold=0.9)),
            rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=5),
        ),
    )


def build(**arguments):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(config(**arguments)))
        model.init_weights()
    for name, parameter in model.named_parameters():
        if "conv_offset" in name or "_fc" in name:  # zero or tiny at first
            torch.nn.init.normal_(parameter, std=0.05)
    model.train()
    return model


def samples(count=2, size=SIZE, boxes=((4.0, 4.0, 20.0, 20.0),)):
    found = []
    for _ in range(count):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(size, size), batch_input_shape=(size, size), pad_shape=(size,) * 2
            )
        )
        truth = torch.tensor(boxes).reshape(-1, 4)
        sample.gt_instances = InstanceData(
            bboxes=truth, labels=torch.ones(len(truth), dtype=torch.long)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        found.append(sample)
    return found


def bilinear(image, y, x):
    """0 outside, with pixel centres at halves."""
    height, width = image.shape[-2:]
    total = 0
    x, y = x - 0.5, y - 0.5
    for row in (int(y // 1), int(y // 1) + 1):
        for column in (int(x // 1), int(x // 1) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                total = total + weight * image[:, row, column]
    return torch.as_tensor(total, dtype=image.dtype).expand(len(image))


def test_patches_against_loops():
    torch.manual_seed(0)
    images = torch.randn(3, 2, 7, 9, dtype=torch.float64)
    rois = torch.tensor(
        [[2, 1, 2, 6, 5], [0, -2.0, 3.5, 4.0, 8.0], [2, 0, 0, 9, 7]], dtype=torch.float64
    )
    size = 4
    found = crop_and_resize(images, rois, size)
    for r, (index, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(size):
            for j in range(size):
                y, x = y1 + (i + 0.5) / size * (y2 - y1), x1 + (j + 0.5) / size * (x2 - x1)
                expected = bilinear(images[int(index)], y, x)
                torch.testing.assert_close(found[r, :, i, j], expected)
    assert crop_and_resize(images, rois[:0], size).shape == (0, 2, size, size)


@pytest.mark.parametrize("pooling", ["DeformRoIPoolPack", "ModulatedDeformRoIPoolPack"])
def test_losses_of_each_region_on_its_own(pooling):
    model = build(pooling=pooling, mimic_weight=0.5, mimic_size=16)
    head = model.roi_head
    images = torch.randn(2, 3, SIZE, SIZE)
    rois = torch.tensor([[1, 3.0, 2, 19, 30], [0, 5, 5, 25, 20], [1, 0, 0, 32, 32]])
    labels = torch.tensor([1, 0, 1])
    maps = model.extract_feat(images)
    with head.seeing(images, model.extract_feat):
        found = head.mimic_loss(maps, rois, labels)
    mimic, classes = 0, 0
    for roi, label in zip(rois, labels, strict=True):
        image = images[int(roi[0])][None]
        one = torch.cat([torch.zeros(1), roi[1:]])[None]
        pooled = head.bbox_roi_extractor(model.extract_feat(image), one).flatten(1)
        first, second = head.bbox_head.shared_fcs
        ours = second(first(pooled).relu()).relu()
        patch = crop_and_resize(image, one, 16)
        whole = torch.tensor([[0.0, 0, 0, 16, 16]])
        pooled = head.bbox_roi_extractor(model.extract_feat(patch), whole).flatten(1)
        theirs = second(first(pooled).relu()).relu()
        mimic += 1 - (ours * theirs).sum() / (ours.norm() * theirs.norm())
        logits = head.mimic_fc_cls(theirs)[0]
        classes += logits.exp().sum().log() - logits[label]
    assert list(found) == ["loss_mimic", "loss_mimic_cls"]
    torch.testing.assert_close(found["loss_mimic"], 0.5 * mimic / 3, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["loss_mimic_cls"], 0.5 * classes / 3, rtol=1e-4, atol=1e-6)


def test_regions_are_positive_proposals_of_their_image_and_no_more_than_asked():
    model = build(mimic_num=3)
    truth = samples(2)
    near = torch.tensor([[4.0, 4, 20, 20], [5, 4, 20, 20], [4, 5, 20, 20], [4, 4, 21, 20]])
    far = torch.tensor([[0.0, 0, 5, 5], [20, 20, 30, 30]])
    proposals = [
        InstanceData(priors=torch.cat([near, far])),
        InstanceData(priors=torch.cat([far, near[:1]])),
    ]
    rois, labels = model.roi_head._choose(proposals, truth)
    assert rois[:, 0].tolist() == [0, 0, 0, 1] and labels.tolist() == [1] * 4
    assert all(any(torch.equal(roi[1:], box) for box in near) for roi in rois)


def test_training_adds_both_losses_and_reaches_all_parameters():
    model = build(mimic_size=16)
    images = torch.randn(2, 3, SIZE, SIZE)
    truth = samples(2, boxes=((4.0, 4, 20, 20), (8.0, 8, 24, 24), (0.0, 0, 16, 16)))
    torch.nn.init.zeros_(model.rpn_head.rpn_reg.weight)  # proposals where the anchors are
    losses = model.loss(images, truth)
    assert {"loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mimic", "loss_mimic_cls"} <= set(losses)
    assert losses["loss_mimic"] > 0 and losses["loss_mimic_cls"] > 0
    (losses["loss_mimic"] + losses["loss_mimic_cls"]).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    for part in ("conv_offset", "shared_fcs.0", "shared_fcs.1", "mimic_fc_cls", "offset_fc"):
        assert any(part in name for name in reached), part
    assert not any(part in name for name in reached for part in ("rpn", "fc_reg", ".fc_cls"))


def test_without_positive_proposals_the_losses_are_zero_and_have_a_gradient():
    model = build()
    losses = model.loss(torch.randn(2, 3, SIZE, SIZE), samples(2, boxes=()))
    assert losses["loss_mimic"] == losses["loss_mimic_cls"] == 0
    losses["loss_mimic_cls"].backward()
    assert model.roi_head.mimic_fc_cls.weight.grad is not None


def test_inference_and_checkpoints_are_those_of_the_plain_detector():
    model = build()
    model.eval()
    plain = config()
    plain["type"] = "FasterRCNN"
    plain["roi_head"]["type"] = "StandardRoIHead"
    with DefaultScope.overwrite_default_scope("mmdet"):
        plain = MODELS.build(ConfigDict(plain))
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and set(unexpected) == {
        "roi_head.mimic_fc_cls.weight", "roi_head.mimic_fc_cls.bias"
    }  # fmt: skip
    plain.eval()
    images = torch.randn(1, 3, SIZE, SIZE)
    truth = samples(1)
    truth[0].set_metainfo(dict(scale_factor=(1.0, 1.0), ori_shape=(SIZE, SIZE)))
    with torch.no_grad():
        (ours,) = model.predict(images, copy.deepcopy(truth))
        (theirs,) = plain.predict(images, copy.deepcopy(truth))
    assert len(ours.pred_instances) > 0
    assert torch.equal(ours.pred_instances.bboxes, theirs.pred_instances.bboxes)


def test_wrong_parts_are_named():
    wrong = config()
    wrong["roi_head"]["type"] = "StandardRoIHead"
    with DefaultScope.overwrite_default_scope("mmdet"):
        with pytest.raises(TypeError, match="expected a mmdcn.MimicRoIHead, got StandardRoIHead"):
            MODELS.build(ConfigDict(wrong))
        wrong = config()
        wrong["roi_head"]["bbox_head"].update(type="ConvFCBBoxHead", num_cls_fcs=1, num_reg_fcs=1)
        with pytest.raises(ValueError, match="bbox_head: expected shared fully connected layers"):
            MODELS.build(ConfigDict(wrong))
    model = build()
    with pytest.raises(RuntimeError, match="roi_head of a mmdcn.MimicRCNN"):
        model.roi_head.loss(model.extract_feat(torch.randn(1, 3, SIZE, SIZE)), [], [])
    assert isinstance(model, MimicRCNN)
