"""The recipes that train as the authors of Deformable ConvNets did, and the rates of offsets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmdet")
from mmdcn import ops  # noqa: E402
from mmdcn.models.backbones.resnet import ResNet  # noqa: E402
from mmdcn.models.layers import SingleRoIExtractor  # noqa: E402
from mmdcn.models.necks import LastMapConv  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
FASTER_RCNN = CONFIGS / "dcn" / "faster-rcnn_r101-dconv-c3-c5_dc5_dpool_16e_coco.py"
R_FCN = CONFIGS / "r_fcn" / "r-fcn_r101-dconv-c5_dpsroi_ohem_16e_coco.py"
# settings of the authors' experiments; the number of GPUs, on each of which one image is
GPUS = {FASTER_RCNN: 4, R_FCN: 8}


def build(cfg):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(cfg.model)


def deformable_layers(backbone):
    return [name for name, m in backbone.named_modules() if isinstance(m, ops.DeformConv2dPack)]


def rates(cfg, model):
    """Learning rate of each parameter, as a multiple of the config's."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: group["lr"] / cfg.optim_wrapper.optimizer.lr
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("path", GPUS, ids=lambda p: p.parent.name)
def test_training_is_the_authors(path):
    cfg, gpus = Config.fromfile(path), GPUS[path]
    optimizer = cfg.optim_wrapper.optimizer
    # MXNet: w -= lr * (sum of gradients + wd * w); here the gradients are averaged
    assert optimizer.type == "SGD" and optimizer.momentum == 0.9
    np.testing.assert_allclose(optimizer.lr / gpus, 5e-4)
    np.testing.assert_allclose(optimizer.lr * optimizer.weight_decay, 5e-4 * 5e-4)
    assert cfg.train_dataloader.batch_size == 1 and cfg.auto_scale_lr.base_batch_size == gpus
    assert cfg.train_cfg.max_epochs == 2 * 8  # their epochs have all images twice, once mirrored
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        (resize,) = [t for t in loader.dataset.pipeline if t.type == "Resize"]
        assert (resize.scale, resize.keep_ratio) == ((1000, 600), True)
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    assert (train.rpn_proposal.nms_pre, train.rpn_proposal.max_per_img) == (6000, 300)
    assert (test.rpn.nms_pre, test.rpn.max_per_img) == (6000, 300)
    assert (test.rcnn.nms.iou_threshold, test.rcnn.max_per_img) == (0.3, 100)
    assert train.rcnn.sampler.num == 128
    backbone = cfg.model.backbone
    assert (backbone.depth, backbone.style, backbone.frozen_stages) == (101, "caffe", 1)
    assert backbone.norm_eval and not backbone.norm_cfg.requires_grad


def test_only_some_blocks_of_faster_r_cnn_are_deformable():
    cfg = Config.fromfile(FASTER_RCNN)
    with torch.device("meta"):
        model = build(cfg)
    expected = ["layer2.3", "layer3.22", "layer4.0", "layer4.1", "layer4.2"]
    assert deformable_layers(model.backbone) == [f"{block}.conv2" for block in expected]
    assert all(model.backbone.get_submodule(f"{b}.conv2").deform_groups == 4 for b in expected)
    (layer,) = model.roi_head.bbox_roi_extractor.roi_layers
    assert [type(m) for m in layer.offset_fc] == [torch.nn.Linear]
    found = rates(cfg, model)
    slow = {name for name, rate in found.items() if rate != 1}
    offset_fc = "roi_head.bbox_roi_extractor.roi_layers.0.offset_fc.0"
    assert slow == {f"{offset_fc}.weight", f"{offset_fc}.bias"}
    assert all(found[name] == pytest.approx(0.01) for name in slow)


def test_the_new_convolution_of_r_fcn_learns_faster():
    cfg = Config.fromfile(R_FCN)
    with torch.device("meta"):
        model = build(cfg)
    assert deformable_layers(model.backbone) == [f"layer4.{i}.conv2" for i in range(3)]
    fast = {name: rate for name, rate in rates(cfg, model).items() if rate != 1}
    conv = "roi_head.bbox_head.conv.conv"
    assert fast == {f"{conv}.weight": pytest.approx(3), f"{conv}.bias": pytest.approx(3)}


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CONFIGS.glob("*/*md*coco.py")) if p.parent.name in ("dcn", "r_fcn")
     and "internimage" not in p.name],
    ids=lambda p: p.stem,
)  # fmt: skip
def test_offsets_and_masks_of_dcnv2_learn_at_a_tenth_of_the_rate(path):
    cfg = Config.fromfile(path)
    with torch.device("meta"):
        model = build(cfg)
    predictors = ("conv_offset", "conv_mask", "offset_fc", "mask_fc")
    for name, rate in rates(cfg, model).items():
        assert rate == pytest.approx(0.1 if any(p in name for p in predictors) else 1), name


def test_numbers_of_deformable_blocks():
    options = dict(depth=50, dcn=dict(type="mmdcn.DCN"), stage_with_dcn=(False, True, True, True))
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
        backbone = ResNet(**options, dcn_blocks=(0, 4, 0, 1))
        plain = ResNet(**options, dcn_blocks=(3, 0, 0, 0))
        for wrong in [(0, 1, 1), (0, 5, 1, 1), (0, -1, 1, 1)]:
            with pytest.raises(ValueError, match="dcn_blocks: expected a number of blocks"):
                ResNet(**options, dcn_blocks=wrong)
    expected = [f"layer2.{i}.conv2" for i in range(4)] + ["layer4.2.conv2"]
    assert deformable_layers(backbone) == expected
    assert deformable_layers(plain) == []


def test_neck_and_extractor_leave_the_first_map_alone():
    first, last = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 8, 8)
    neck = LastMapConv(5, 4)
    neck.init_weights()
    assert 0 < neck.conv.weight.abs().max() < 0.1
    same, mapped = neck((first, last))
    assert same is first
    expected = torch.einsum("oc,nchw->nohw", neck.conv.weight[:, :, 0, 0], last)
    torch.testing.assert_close(mapped, expected.relu())
    options = dict(roi_layer=dict(type="RoIAvgPool", output_size=2), out_channels=4)
    extractor = SingleRoIExtractor(**options, featmap_strides=[16], start_level=1)
    alone = SingleRoIExtractor(**options, featmap_strides=[16])
    rois = torch.tensor([[0.0, 3, 5, 70, 90], [1, 30, 20, 110, 100]])
    assert extractor.num_inputs == 2
    assert torch.equal(extractor((first, mapped), rois), alone((mapped,), rois))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_layers_of_a_pooling_that_predict_offsets(count):
    torch.manual_seed(0)
    layer = ops.DeformRoIPoolPack(3, 4, 8, num_offset_fcs=count).double()
    linear = [m for m in layer.offset_fc if isinstance(m, torch.nn.Linear)]
    widths = [36, *[8] * (count - 1), 18]
    assert [m.in_features for m in linear] == widths[:-1]
    assert [m.out_features for m in linear] == widths[1:]
    x, rois = torch.randn(1, 4, 9, 9).double(), torch.tensor([[0, 1.0, 2.0, 7.0, 8.0]]).double()
    assert torch.equal(layer(x, rois), ops.deform_roi_pool(x, rois, output_size=3))
    torch.nn.init.normal_(linear[-1].weight)
    assert not torch.equal(layer(x, rois), ops.deform_roi_pool(x, rois, output_size=3))


def test_a_pooling_without_such_a_layer_is_an_error():
    with pytest.raises(ValueError, match="num_offset_fcs: expected at least 1, got 0"):
        ops.DeformRoIPoolPack(3, 4, num_offset_fcs=0)
