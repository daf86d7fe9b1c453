"""What is exported computes what MMDetection and MMSegmentation predict."""

import pytest
import torch

for package in ("mmdet", "mmseg", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
from mmdet.structures import DetDataSample  # noqa: E402

from mmdcn.deployment.detectors import TwoStage, network_of  # noqa: E402
from mmdcn.deployment.networks import Segmentor  # noqa: E402
from mmdcn.engine.errors import UsageError  # noqa: E402

ROI = "model.roi_head"
DEFORMABLE = {
    f"{ROI}.bbox_roi_extractor.type": "mmdcn.SingleRoIExtractor",
    f"{ROI}.bbox_roi_extractor.roi_layer": dict(
        type="mmdcn.ModulatedDeformRoIPoolPack", output_size=7, output_channels=8, sampling_ratio=2
    ),
}
CASCADE = {
    "model.backbone.base_channels": 4,
    "model.backbone.stem_channels": 4,
    "model.backbone.init_cfg": None,
    "model.neck.in_channels": [16, 32, 64, 128],
    "model.neck.out_channels": 8,
    "model.rpn_head.in_channels": 8,
    "model.rpn_head.feat_channels": 8,
    f"{ROI}.bbox_roi_extractor.out_channels": 8,
    f"{ROI}.mask_roi_extractor.out_channels": 8,
    **{f"{ROI}.bbox_head.{i}.in_channels": 8 for i in range(3)},
    **{f"{ROI}.bbox_head.{i}.fc_out_channels": 16 for i in range(3)},
    **{f"{ROI}.bbox_head.{i}.num_classes": 3 for i in range(3)},
    f"{ROI}.mask_head.in_channels": 8,
    f"{ROI}.mask_head.conv_out_channels": 8,
    f"{ROI}.mask_head.num_classes": 3,
    "model.test_cfg.rpn.nms_pre": 50,
    "model.test_cfg.rpn.max_per_img": 20,
    "model.test_cfg.rcnn.score_thr": 0.0,
    "model.test_cfg.rcnn.max_per_img": 10,
}
DETECTORS = {
    "mask": ("tiny_mask_rcnn", {}),
    "deformable pooling": ("tiny_mask_rcnn", DEFORMABLE),
    "one box for all": ("tiny_mask_rcnn", {f"{ROI}.bbox_head.reg_class_agnostic": True}),
    "small boxes": ("tiny_mask_rcnn", {"model.test_cfg.rpn.min_bbox_size": 40}),
    "threshold": ("tiny_mask_rcnn", {"model.test_cfg.rcnn.score_thr": 0.3}),
    "cascade": ("dcn/cascade-mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco", CASCADE),
    "R-FCN": ("demo/r-fcn_r50_demo", {"model.backbone.base_channels": 8,
              "model.rpn_head.in_channels": 128, f"{ROI}.bbox_head.in_channels": 256,
              "model.test_cfg.rcnn.score_thr": 0.0}),
    "deformable R-FCN": ("demo/r-fcn_r50-mdconv-c3-c5_mdpsroi_demo", {
        "model.backbone.base_channels": 8, "model.rpn_head.in_channels": 128,
        f"{ROI}.bbox_head.in_channels": 256, "model.test_cfg.rcnn.score_thr": 0.0}),
}  # fmt: skip


def predicted(model, images):
    size = tuple(images.shape[2:])
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
    )
    with torch.no_grad():
        (found,) = model.predict(images, [sample], rescale=False)
    return found.pred_instances


@pytest.mark.parametrize("size", [(96, 96), (64, 128)], ids=str)
@pytest.mark.parametrize("name", DETECTORS)
def test_two_stage_detector(make_model, name, size):
    model = make_model(*DETECTORS[name])
    network = network_of(model, normalize=False).eval()
    image = torch.randn(1, 3, *size)
    expected = predicted(model, image)
    with torch.no_grad():
        dets, labels, *masks = network(image)
    count = len(expected)
    assert count >= 2 and network.outputs == ("dets", "labels", *["masks"] * len(masks))
    torch.testing.assert_close(dets[:count, :4], expected.bboxes)
    torch.testing.assert_close(dets[:count, 4], expected.scores)
    assert labels[:count].tolist() == expected.labels.tolist()
    assert not dets[count:].any() and (labels[count:] == -1).all()
    if masks:
        for box, mask, whole in zip(dets[:count, :4], masks[0], expected.masks, strict=False):
            pasted = paste(mask, box, size)
            assert (pasted != whole).float().mean() < 0.01
    assert bool(masks) == model.roi_head.with_mask


def paste(mask, box, size):
    """The mask of a box in the image, by the middle of each pixel."""
    x1, y1, x2, y2 = box.tolist()
    y = (torch.arange(size[0]) + 0.5 - y1) / max(y2 - y1, 1e-6) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x1) / max(x2 - x1, 1e-6) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)[None]
    sampled = torch.nn.functional.grid_sample(mask[None, None], grid, align_corners=False)
    return sampled[0, 0] >= 0.5


def test_normalisation_is_that_of_the_model(make_model):
    model = make_model("tiny_mask_rcnn")
    image = torch.randint(0, 256, (1, 3, 96, 96)).float()
    prepared = model.data_preprocessor(dict(inputs=[image[0].byte()]), False)["inputs"]
    outside, inside = (TwoStage(model, normalize).eval() for normalize in (False, True))
    with torch.no_grad():
        for ours, theirs in zip(inside(image), outside(prepared), strict=True):
            torch.testing.assert_close(ours, theirs)
    told = outside.normalisation()
    channels = image.flip(1) if told["to_rgb"] else image
    mean, std = (torch.tensor(told[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close((channels - mean) / std, prepared)


@pytest.mark.parametrize("logits", [False, True])
def test_segmentor(make_model, logits):
    model = make_model("tiny_fcn")
    network = Segmentor(model, normalize=False, logits=logits).eval()
    images = torch.randn(2, 3, 96, 64)
    meta = [dict(img_shape=(96, 64), ori_shape=(96, 64), padding_size=(0, 0, 0, 0))] * 2
    with torch.no_grad():
        scores = model.encode_decode(images, meta)
        found = network(images)
    assert torch.equal(found, scores if logits else scores.argmax(1))


WRONG = [
    ({"model.test_cfg.rcnn.nms.type": "soft_nms"}, "test_cfg.rcnn.nms: the export knows nms, got"),
    (DEFORMABLE | {f"{ROI}.bbox_roi_extractor.roi_layer.sampling_ratio": 0}, "sampling_ratio"),
    ({f"{ROI}.bbox_roi_extractor.roi_layer.aligned": False}, "aligned average pooling"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[w[1][:25] for w in WRONG])
def test_what_cannot_be_exported_is_refused(make_model, changes, message):
    with pytest.raises(UsageError, match=message):
        network_of(make_model("tiny_mask_rcnn", changes), normalize=False)
