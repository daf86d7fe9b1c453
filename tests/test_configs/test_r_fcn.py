"""The R-FCN configs on narrow models: training in float32 and bfloat16, resuming, predicting."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmdet")

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted([*CONFIGS.glob("r_fcn/*.py"), *CONFIGS.glob("demo/r-fcn*.py")])
COCO = [path for path in PATHS if path.parent.name == "r_fcn"]
IMAGE = (3, 96, 128)


def read(path):
    """The config with few channels, nothing frozen and nothing to download."""
    cfg = Config.fromfile(path)
    model = cfg.model
    # Without pretrained weights ResNet starts every residual branch at zero, which keeps gradients
    # from it; once it is not zero, normalisation must not use statistics that nothing has measured.
    if model.backbone.type == "ResNet":
        model.backbone.update(
            init_cfg=None, zero_init_residual=False, base_channels=4, frozen_stages=-1,
            norm_eval=False, norm_cfg=dict(type="BN", momentum=1.0),
        )  # fmt: skip
        model.rpn_head.in_channels = 64
        model.roi_head.bbox_head.in_channels = 128
    else:
        model.backbone.update(
            init_cfg=None, channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), drop_path_rate=0.0
        )
        model.neck.update(in_channels=[64, 128], out_channels=16)
        model.rpn_head.in_channels = model.roi_head.bbox_head.in_channels = 16
    model.rpn_head.feat_channels = model.roi_head.bbox_head.feat_channels = 16
    model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 20
    model.test_cfg.rcnn.score_thr = -1.0  # keep every box
    cfg.optim_wrapper.optimizer.lr = 1e-3  # as there is no warm-up
    return cfg


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def batch(items=(2, 0)):
    """Two images with so many objects."""
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, image_shapes=[IMAGE] * 2, num_items=items, num_classes=3)


def step(model, optim_wrapper, data):
    """One step whose random choices are the same every time."""
    torch.manual_seed(1)
    np.random.seed(1)
    logged = model.train_step(data, optim_wrapper)
    assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"} < set(logged)
    assert logged["loss"].isfinite() and logged["loss"] > 0


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_trains_resumes_and_predicts(path):
    torch.manual_seed(0)
    cfg, data = read(path), batch()
    model = build(cfg)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(model, optim_wrapper, data)
    saved = deepcopy([model.state_dict(), optim_wrapper.state_dict()])
    # the second step goes on after a reload, in bfloat16
    outcomes = []
    for resumed in (False, True):
        if resumed:
            model = build(cfg)
        amp = dict(cfg.optim_wrapper, type="mmdcn.BFloat16OptimWrapper")
        optim_wrapper = build_optim_wrapper(model, amp)
        model.load_state_dict(saved[0])
        optim_wrapper.load_state_dict(deepcopy(saved[1]))
        step(model, optim_wrapper, data)
        outcomes.append({name: p.detach().clone() for name, p in model.named_parameters()})
    same = [name for name, p in outcomes[0].items() if torch.equal(p, outcomes[1][name])]
    assert same == list(before)
    unchanged = {name for name, p in before.items() if torch.equal(p, outcomes[1][name])}
    assert all(p.isfinite().all() for p in outcomes[1].values())
    # biases before a batch normalisation may stay, and so may layers behind dead units
    assert not [name for name in unchanged if "roi_head" in name or "offset" in name]

    with torch.no_grad():
        results = model.eval().val_step(data)
    assert len(results) == 2
    for result in results:
        objects = result.pred_instances
        assert len(objects.bboxes) == len(objects.scores) == len(objects.labels) > 0


@pytest.mark.parametrize("name", ["r50-c5-dilated_ohem", "r50-mdconv-c3-c5_mdpsroi"])
@pytest.mark.parametrize("items", [[2, 0], [0, 0]], ids=["an_image_without_objects", "no_objects"])
def test_without_proposals(name, items):
    cfg = read(CONFIGS / "r_fcn" / f"r-fcn_{name}_1x_coco.py")
    for proposals in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
        proposals.min_bbox_size = 10_000  # none is so large
    model, data = build(cfg), batch(items)
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    assert (losses["loss_cls"] > 0) == any(items)  # objects are proposals, too, in training
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        results = model.eval().val_step(data)
    assert [len(result.pred_instances) for result in results] == [0, 0]


@pytest.mark.parametrize("path", COCO, ids=lambda p: p.stem)
def test_is_what_its_name_says(path):
    model = Config.fromfile(path).model
    name, backbone, head = path.stem, model.backbone, model.roi_head.bbox_head
    pooling = {"dpsroi": "DeformPSRoIPoolPack", "mdpsroi": "ModulatedDeformPSRoIPoolPack"}
    expected = [value for key, value in pooling.items() if f"_{key}_" in name] or ["PSRoIPool"]
    assert [head.roi_layer.type] == expected
    assert head.roi_layer.output_size == 7 and head.get("feat_channels", 1024) == 1024
    assert head.num_classes == 80
    if "deform" in head.roi_layer.type.lower():
        parts = (head.roi_layer.part_size, head.roi_layer.sample_per_part, head.roi_layer.trans_std)
        assert parts == (7, 4, 0.1)
    assert model.test_cfg.rpn.max_per_img == 300
    sampler = model.train_cfg.rcnn.sampler
    assert sampler.type == ("mmdcn.OHEMSampler" if "_ohem_" in name else "RandomSampler")
    assert sampler.num == 128 and model.test_cfg.rcnn.nms.iou_threshold == 0.3
    if backbone.type == "ResNet":
        assert f"_r{backbone.depth}-" in name
        assert f"resnet{backbone.depth}" in backbone.init_cfg.checkpoint
        convs = {"-dconv": "mmdcn.DCN", "-mdconv": "mmdcn.DCNv2", "-c5-dilated": None}
        (conv,) = [value for key, value in convs.items() if key in name]
        assert (backbone.get("dcn") or {}).get("type") == conv
        assert np.prod(backbone.strides) * 4 == 16 and backbone.dilations[-1] == 2
