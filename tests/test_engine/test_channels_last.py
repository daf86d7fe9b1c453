"""A detector in torch.channels_last: the same numbers, and the format from end to end."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import HOOKS, MODELS, DefaultScope
from torch import nn

pytest.importorskip("mmdet")


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_results_stay_and_the_format_is_passed_on(root):
    cfg = Config.fromfile(root / "tests" / "test_tools" / "configs" / "tiny_mask_rcnn.py")
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model).eval().double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = model.extract_feat(images)
        HOOKS.build(dict(type="mmdcn.ChannelsLastHook")).before_run(SimpleNamespace(model=model))
        formats = []
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d) and module.out_channels > 1:
                formats.append(is_channels_last(module.weight))
        actual = model.extract_feat(images)
    assert formats and all(formats)
    assert all(is_channels_last(level) for level in actual)
    assert not any(is_channels_last(level) for level in expected)
    torch.testing.assert_close(actual, expected)


def test_model_under_test_time_augmentation():
    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 3)

        def forward(self, inputs):
            return self.backbone(inputs)

    class Averages(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    model = Model()
    hook = HOOKS.build(dict(type="mmdcn.ChannelsLastHook"))
    hook.before_run(SimpleNamespace(model=Averages(model)))
    assert is_channels_last(model.backbone.weight)
    assert is_channels_last(model.backbone(torch.randn(2, 3, 8, 8)))


def test_model_without_backbone():
    hook = HOOKS.build(dict(type="mmdcn.ChannelsLastHook"))
    with pytest.raises(TypeError, match="expected a model with a backbone, got Linear"):
        hook.before_run(SimpleNamespace(model=nn.Linear(1, 1)))
