"""A detector in torch.channels_last: the same numbers, and the format from end to end."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
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


def test_model_without_backbone():
    hook = HOOKS.build(dict(type="mmdcn.ChannelsLastHook"))
    with pytest.raises(TypeError, match="expected a model with a backbone, got Linear"):
        hook.before_run(SimpleNamespace(model=nn.Linear(1, 1)))
