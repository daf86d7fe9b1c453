"""Every config builds, and one of each family takes a training step and predicts."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmdet")

CONFIGS = Path(__file__).parents[2] / "configs"
# Those of classifiers need MMPretrain: tests/test_classification.
ALL = sorted(p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts and "_in1k" not in p.stem)
DCN = sorted((CONFIGS / "dcn").glob("*_r50-*dconv-c3-c5_fpn_1x_coco.py"))
MIMIC = sorted((CONFIGS / "dcn").glob("*_mimic_*.py"))
DPOOL = sorted((CONFIGS / "dcn").glob("*_r50_fpn_*dpool_*.py"))
DCNV3_AND_4 = sorted((CONFIGS / "dcn").glob("*_r50-dcnv*-c3-c5_*_coco.py"))


def name(path):
    return path.stem


def build(cfg, device="cpu"):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize("path", ALL, ids=name)
def test_builds_and_imports_what_it_names(path):
    cfg = Config.fromfile(path)
    if "mmdcn." in str(cfg.to_dict()):
        assert any(module.startswith("mmdcn.") for module in cfg.custom_imports.imports)
        assert cfg.custom_imports.allow_failed_imports is False
    model = build(cfg, "meta")
    assert sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("path", DCN, ids=name)
def test_dcn_models_have_the_state_dict_of_mmdet(path):
    # MMDetection's own model of the same name, with MMCV's layers, is the oracle; where it has no
    # config of that name, its plain config with MMCV's layer put in.
    pytest.importorskip("mmcv.ops")
    plain_type = {"mmdcn.DCN": "DCN", "mmdcn.DCNv2": "DCNv2"}
    cfg = Config.fromfile(path)
    folder = {"mmdcn.DCN": "dcn", "mmdcn.DCNv2": "dcnv2"}[cfg.model.backbone.dcn.type]
    ours = {k: v.shape for k, v in build(cfg, "meta").state_dict().items()}
    try:
        oracle = Config.fromfile(mmdet_config(f"{folder}/{path.name}"))
    except FileNotFoundError:
        assert path.name.startswith("cascade") and folder == "dcnv2"
        plain = path.name.replace("-mdconv-c3-c5", "")
        oracle = Config.fromfile(mmdet_config(f"cascade_rcnn/{plain}"))
        oracle.model.backbone.update(
            dcn=dict(type=plain_type["mmdcn.DCNv2"], deform_groups=1, fallback_on_stride=False),
            stage_with_dcn=(False, True, True, True),
        )
    expected = {k: v.shape for k, v in build(oracle, "meta").state_dict().items()}
    assert "backbone.layer4.2.conv2.conv_offset.weight" in ours
    assert ours == expected


@pytest.mark.parametrize("path", MIMIC, ids=name)
def test_mimicking_adds_one_layer_to_deformable_convolution_and_pooling(path):
    ours = {k: v.shape for k, v in build(Config.fromfile(path), "meta").state_dict().items()}
    extra = {key for key in ours if key.startswith("roi_head.mimic_fc_cls.")}
    assert len(extra) == 2
    detector = path.stem.split("_")[0]
    parts = {}
    for other in (f"{detector}_r50-mdconv-c3-c5_fpn_1x_coco", f"{detector}_r50_fpn_mdpool_1x_coco"):
        model = build(Config.fromfile(CONFIGS / "dcn" / f"{other}.py"), "meta")
        parts |= {key: value.shape for key, value in model.state_dict().items()}
    assert {key: ours[key] for key in ours.keys() - extra} == parts


@pytest.mark.parametrize("path", DPOOL, ids=name)
def test_dpool_models_have_the_state_dict_of_mmdet(path):
    pytest.importorskip("mmcv.ops")
    ours = {k: v.shape for k, v in build(Config.fromfile(path), "meta").state_dict().items()}
    folder = "dcnv2" if "mdpool" in path.stem else "dcn"
    box_only = mmdet_config(f"{folder}/{path.name.replace('mask', 'faster')}")
    oracle = Config.fromfile(box_only)
    if "mask" in path.stem:  # MMDetection has its Mask R-CNN and its RoI layer, not together
        box_extractor = oracle.model.roi_head.bbox_roi_extractor
        oracle = Config.fromfile(mmdet_config("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"))
        oracle.model.roi_head.bbox_roi_extractor = box_extractor
    expected = {k: v.shape for k, v in build(oracle, "meta").state_dict().items()}
    assert "roi_head.bbox_roi_extractor.roi_layers.3.offset_fc.4.weight" in ours
    assert ours == expected


def mmdet_config(path):
    from mmengine.utils import get_installed_path

    return Path(get_installed_path("mmdet")) / ".mim" / "configs" / path


def offset_layers(model):
    """The layers that predict offsets: those of DCN and DCNv2, of DCNv3, of DCNv4."""
    names = ("conv_offset", "offset", "offset_mask")
    return [getattr(m, n) for m in model.modules() for n in names if hasattr(m, n)]


@pytest.mark.parametrize("path", DCN + DCNV3_AND_4, ids=name)
def test_dcn_models_train_and_predict(path):
    model = train_and_predict(Config.fromfile(path), with_mask="mask" in path.stem)
    offsets = offset_layers(model)
    assert len(offsets) == 13 and all(m.weight.grad.any() for m in offsets)


@pytest.mark.parametrize("path", DPOOL, ids=name)
def test_dpool_models_train_and_predict(path):
    cfg = Config.fromfile(path)
    cfg.model.roi_head.bbox_roi_extractor.roi_layer.deform_fc_channels = 32
    model = train_and_predict(cfg, with_mask="mask" in path.stem)
    # All RoIs of these small images belong to the finest level.
    first, *others = model.roi_head.bbox_roi_extractor.roi_layers
    assert hasattr(first, "mask_fc") == ("mdpool" in path.stem)
    heads = [first.offset_fc[-1]] + ([first.mask_fc[2]] if hasattr(first, "mask_fc") else [])
    assert all(m.weight.grad.any() for m in heads)
    assert all(p.grad is not None for layer in others for p in layer.parameters())


def train_and_predict(cfg, with_mask):
    """One loss with its gradients and one prediction; returns the model."""
    from mmdet.testing import demo_mm_inputs

    torch.manual_seed(0)
    # Download nothing, and let the gradient through: without pretrained weights ResNet starts every
    # residual branch at zero.
    cfg.model.backbone.update(init_cfg=None, zero_init_residual=False)
    # Few proposals, for speed.
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 20
    model = build(cfg)
    model.init_weights()
    batch = demo_mm_inputs(1, image_shapes=[(3, 64, 96)], num_items=[2], with_mask=with_mask)
    losses = model.train().forward(**model.data_preprocessor(batch, True), mode="loss")
    loss, _ = model.parse_losses(losses)
    assert loss.isfinite()
    loss.backward()
    model.eval()
    with torch.no_grad():
        (sample,) = model.forward(**model.data_preprocessor(batch, False), mode="predict")
    predicted = sample.pred_instances
    assert len(predicted.bboxes) == len(predicted.scores) == len(predicted.labels)
    assert ("masks" in predicted) == with_mask
    return model
