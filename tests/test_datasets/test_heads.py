"""Heads with another number of classes than the data are refused before a run."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmdcn.datasets.errors import DatasetError
from mmdcn.datasets.heads import check_heads

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = [f"class {number}" for number in range(80)]


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        return MODELS.build(copy.deepcopy(cfg.model))


def set_all(cfg, value, skip=("rpn_head", "semantic_head")):
    """Set each ``num_classes`` in a part of a config; gives how many there were."""
    if isinstance(cfg, dict):
        found = 0
        for key, inner in cfg.items():
            if key == "num_classes":
                cfg[key] = value
                found += 1
            elif key not in skip:
                found += set_all(inner, value)
        return found
    return sum(set_all(inner, value) for inner in cfg) if isinstance(cfg, list | tuple) else 0


DETECTORS = {
    "dcn/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py": [
        "model.roi_head.bbox_head",
        "model.roi_head.mask_head",
    ],
    "dcn/cascade-mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py": [
        *(f"model.roi_head.bbox_head[{stage}]" for stage in range(3)),
        *(f"model.roi_head.mask_head[{stage}]" for stage in range(3)),
    ],
    "demo/r-fcn_r50_demo.py": ["model.roi_head.bbox_head"],
    "internimage/dino-4scale_internimage-t_1x_coco.py": ["model.bbox_head"],
}


@pytest.mark.parametrize("config", DETECTORS)
def test_detectors(config):
    pytest.importorskip("mmdet")
    cfg = Config.fromfile(CONFIGS / config)
    set_all(cfg.model, 80)
    check_heads(build(cfg), CLASSES, "train_dataloader.dataset")
    set_all(cfg.model, 5)
    with pytest.raises(DatasetError) as caught:
        check_heads(build(cfg), CLASSES, "train_dataloader.dataset")
    wrong = ", ".join(f"{name}.num_classes is 5" for name in DETECTORS[config])
    assert str(caught.value) == (
        f"{wrong}, but train_dataloader.dataset has 80 classes: class 0, class 1, class 2, ..."
    )


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (
            "dcn/upernet_r50-mdconv-c3-c5_160k_ade20k-512x512.py",
            ["model.decode_head", "model.auxiliary_head"],
        ),
        ("flash_internimage/mask2former_flash-internimage-t_160k_ade20k-512x512.py",
         ["model.decode_head"]),
    ],
)  # fmt: skip
def test_segmentors(config, heads):
    pytest.importorskip("mmseg")
    cfg = Config.fromfile(CONFIGS / config)
    classes = [f"class {number}" for number in range(150)]
    model = build(cfg)
    check_heads(model, classes, "val_dataloader.dataset")
    with pytest.raises(DatasetError) as caught:
        check_heads(model, CLASSES, "val_dataloader.dataset")
    assert str(caught.value).startswith(
        ", ".join(f"{name}.num_classes is 150" for name in heads) + ", but val_dataloader.dataset"
    )


def test_several_auxiliary_heads():
    pytest.importorskip("mmseg")
    cfg = Config.fromfile(CONFIGS / "dcn/upernet_r50-mdconv-c3-c5_160k_ade20k-512x512.py")
    cfg.model.auxiliary_head = [cfg.model.auxiliary_head, dict(cfg.model.auxiliary_head)]
    cfg.model.auxiliary_head[1].num_classes = 19
    classes = [f"class {number}" for number in range(150)]
    with pytest.raises(DatasetError, match=r"^model\.auxiliary_head\[1\]\.num_classes is 19, but"):
        check_heads(build(cfg), classes, "train_dataloader.dataset")


class Head(nn.Module):
    def __init__(self, num_classes, **attributes):
        super().__init__()
        self.num_classes = num_classes
        vars(self).update(attributes)


def test_heads_that_know_no_classes_of_objects():
    model = nn.Module()
    model.rpn_head = Head(1)
    model.roi_head = nn.Module()
    model.roi_head.semantic_head = Head(183)
    model.roi_head.mask_head = Head(81, class_agnostic=True)
    model.backbone = Head(1000)
    model.bbox_head = Head(80)
    check_heads(model, CLASSES, "train_dataloader.dataset")
    model.bbox_head.num_classes = 79
    wrapped = nn.Module()
    wrapped.module = model  # test-time augmentation and distributed training wrap models
    with pytest.raises(DatasetError, match=r"^model\.bbox_head\.num_classes is 79, but"):
        check_heads(wrapped, CLASSES, "train_dataloader.dataset")


def test_config_is_checked(coco):
    pytest.importorskip("mmdet")
    model = nn.Module()
    model.bbox_head = Head(2)
    coco.check("train", "val", model=model)
    model.bbox_head.num_classes = 80
    message = (
        r"^model\.bbox_head\.num_classes is 80, but train_dataloader\.dataset has 2 classes: "
        r"cat, dog$"
    )
    with pytest.raises(DatasetError, match=message):
        coco.check("train", "val", model=model)
    # such models compare boxes with words
    coco.dataset.return_classes = True
    coco.check("train", model=model)
