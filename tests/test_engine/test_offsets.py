"""Learning rates and weight decay of the layers that predict offsets and masks."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdcn import ops

RATE, DECAY = 0.1, 0.01
OPTIONS = dict(bias_lr_mult=2.0, bias_decay_mult=0.0, flat_decay_mult=0.5, dcn_offset_lr_mult=0.1)


def settings(model, constructor="mmdcn.OptimWrapperConstructor", **paramwise):
    """Learning rate and weight decay of each parameter."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor=constructor,
            optimizer=dict(type="SGD", lr=RATE, weight_decay=DECAY),
            paramwise_cfg=paramwise,
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (pytest.approx(group["lr"]), group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }


class Nested(nn.Module):
    """A layer below another one, between layers without offsets."""

    def __init__(self, layer):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.block = nn.Sequential(layer, nn.BatchNorm2d(8))


@pytest.mark.parametrize(
    "options", [OPTIONS, {}, dict(OPTIONS, custom_keys={"block.0.conv_offset.b": dict(lr_mult=5)})]
)
@pytest.mark.parametrize("name", ["DeformConv2dPack", "ModulatedDeformConv2dPack"])
def test_as_mmengine_treats_the_layers_of_mmcv(name, options):
    mmcv = pytest.importorskip("mmcv.ops")
    theirs = settings(
        Nested(getattr(mmcv, name)(8, 8, 3)), "DefaultOptimWrapperConstructor", **options
    )
    ours = settings(Nested(getattr(ops, name)(8, 8, 3)), **options)
    assert ours == theirs and len(ours) >= 7


LAYERS = {
    "DCNv3": (lambda: ops.DCNv3(16), {"offset", "mask"}),
    "DCNv3Conv2d": (lambda: ops.DCNv3Conv2d(16, 16, 3), {"offset", "mask"}),
    "DCNv4": (lambda: ops.DCNv4(32), {"offset_mask"}),
    "DCNv4Conv2d": (lambda: ops.DCNv4Conv2d(16, 16, 3), {"offset_mask"}),
    "DeformRoIPoolPack": (lambda: ops.DeformRoIPoolPack(2, 4, 8), {"offset_fc"}),
    "ModulatedDeformRoIPoolPack": (
        lambda: ops.ModulatedDeformRoIPoolPack(2, 4, 8),
        {"offset_fc", "mask_fc"},
    ),
    "DeformPSRoIPoolPack": (
        lambda: ops.DeformPSRoIPoolPack(2, 4, group_size=2, feature_channels=8),
        {"conv_offset"},
    ),
    "ModulatedDeformPSRoIPoolPack": (
        lambda: ops.ModulatedDeformPSRoIPoolPack(2, 4, group_size=2, feature_channels=8),
        {"conv_offset", "conv_mask"},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_mmcv_does_not_have(name):
    make, predictors = LAYERS[name]
    layer = make()
    model = nn.ModuleDict({"layer": layer})
    found, plain = (
        settings(model, **OPTIONS),
        settings(model, "DefaultOptimWrapperConstructor", **OPTIONS),
    )
    assert found.keys() == {f"layer.{key}" for key, _ in layer.named_parameters()}
    assert {key.split(".")[1] for key in found if found[key] != plain[key]} == predictors
    for key in found:
        predicts = key.split(".")[1] in predictors
        assert found[key] == ((RATE * 0.1, DECAY) if predicts else plain[key])


def test_every_layer_that_learns_offsets_is_known():
    """A layer whose output moves with its zero-initialised part belongs here."""
    learning = {
        name
        for name in ops.__all__
        if name.endswith("Pack") or name in ("DCNv3", "DCNv4", "DCNv3Conv2d", "DCNv4Conv2d")
    }
    assert learning == LAYERS.keys() | {"DeformConv2dPack", "ModulatedDeformConv2dPack"}


def test_a_key_of_the_user_comes_first():
    model = nn.ModuleDict(
        {"backbone": ops.DeformConv2dPack(4, 4, 3), "neck": ops.DeformConv2dPack(4, 4, 3)}
    )
    found = settings(model, dcn_offset_lr_mult=0.1, custom_keys={"backbone": dict(lr_mult=0.5)})
    assert found["backbone.conv_offset.weight"][0] == RATE * 0.5
    assert found["neck.conv_offset.weight"][0] == RATE * 0.1
    assert found["neck.weight"][0] == RATE


def test_without_options_all_parameters_are_one_group():
    model = ops.DeformConv2dPack(4, 4, 3)
    wrapper = build_optim_wrapper(
        model,
        dict(constructor="mmdcn.OptimWrapperConstructor", optimizer=dict(type="SGD", lr=RATE)),
    )
    (group,) = wrapper.optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert torch.is_tensor(group["params"][0])
