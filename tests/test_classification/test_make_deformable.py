"""make_deformable on the models of other libraries: equal outputs, gradients, state dicts."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip("mmpretrain", reason="make test-classification has MMPretrain")
from mmdcn import ops


def torchvision_resnet():
    import torchvision

    return torchvision.models.resnet50(weights=None), r"layer[234].*conv2", 13


def timm_resnet():
    timm = pytest.importorskip("timm")
    return timm.create_model("resnet50", num_classes=10), r"layer[234].*conv2", 13


def timm_regnet():  # grouped convolutions
    timm = pytest.importorskip("timm")
    return timm.create_model("regnety_002", num_classes=10), r"s[34]\..*conv2\.conv", 11


def mmpretrain_resnet():
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(dict(type="mmpretrain.ResNet", depth=50)), r"layer[234].*conv2", 13


@pytest.mark.parametrize("type", ["DCN", "DCNv2"])
@pytest.mark.parametrize("make", [torchvision_resnet, timm_resnet, timm_regnet, mmpretrain_resnet])
def test_outputs_are_equal_and_offsets_get_gradients(make, type):
    torch.manual_seed(0)
    model, pattern, count = make()
    model.eval()
    for module in model.modules():  # some start with 0, so that branches add nothing
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    image = torch.randn(1, 3, 64, 64)

    def output():
        out = model(image)
        return out[-1] if isinstance(out, tuple) else out

    with torch.no_grad():
        expected, state = output(), dict(model.state_dict())
        new = ops.make_deformable(model, pattern, type=type)
        assert len(new) == count
        torch.testing.assert_close(output(), expected, rtol=1e-4, atol=1e-4)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(".conv_offset." in name for name in missing)
    output().square().sum().backward()
    assert all(layer.conv_offset.weight.grad.any() for layer in new.values())
