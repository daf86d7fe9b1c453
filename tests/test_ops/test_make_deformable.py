"""make_deformable: the same outputs, what is replaced, what is refused."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from mmdcn import ops

GEOMETRIES = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, padding="same", dilation=2),
    dict(kernel_size=(5, 1), padding=(2, 0), stride=(2, 1), bias=False),
    dict(kernel_size=1, padding="valid"),
    dict(kernel_size=3, padding=2, dilation=2, groups=2),
    dict(kernel_size=2, stride=2, groups=4),
]


class Branches(nn.Module):
    """A layer with two names, one with none of its own parameters, and a list."""

    def __init__(self, **geometry):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.first = nn.Conv2d(4, 8, **(geometry or GEOMETRIES[0]))
        self.heads = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)])
        self.again = self.heads[1]
        self.up = nn.ConvTranspose2d(8, 2, 2)

    def forward(self, x):
        x = self.first(self.stem(x))
        return self.up(self.again(self.heads[1](self.heads[0](x))))


def build(dtype=torch.float64, **geometry):
    torch.manual_seed(0)
    model = Branches(**geometry).to(dtype)
    model(torch.randn(4, 3, 9, 8, dtype=dtype))  # statistics of the normalisation
    return model.eval()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("type", ["DCN", "DCNv2"])
def test_output_and_state_stay_the_same_and_gradients_reach_the_offsets(type, geometry):
    model = build(**geometry)
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    expected, state, parameters = (
        model(x),
        copy.deepcopy(model.state_dict()),
        set(model.parameters()),
    )
    new = ops.make_deformable(model, r"first|heads\.1|again", type=type)
    assert list(new) == ["first", "heads.1", "again"]
    assert new["heads.1"] is new["again"] is model.again is model.heads[1]
    torch.testing.assert_close(model(x), expected)

    assert parameters <= set(model.parameters())
    extra = {n for n in model.state_dict() if n not in state}
    assert extra and all(".conv_offset." in name for name in extra)
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) == extra and not unexpected
    torch.testing.assert_close(model(x), expected)

    model(x).square().sum().backward()
    for layer in new.values():
        assert layer.conv_offset.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("type", ["DCNv3", "DCNv4"])
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g["kernel_size"] != 2], ids=str)
def test_new_weights_have_the_geometry_of_the_convolution(type, geometry):
    model = build(**geometry)
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    shape = model(x).shape
    (layer,) = ops.make_deformable(model, "first", type=type, deform_groups=2).values()
    assert isinstance(layer, getattr(ops, f"{type}Conv2d")) and layer.deform_groups == 2
    assert model(x).shape == shape


def test_a_function_chooses():
    model = build()
    new = ops.make_deformable(model, lambda name, conv: conv.kernel_size == (3, 3), type="DCN")
    assert list(new) == ["stem.0", "first", "heads.1", "again"]


def test_device_dtype_mode_and_frozen_parameters_are_kept():
    model = build(torch.bfloat16)
    model.first.weight.requires_grad_(False)
    layer = ops.make_deformable(model, "first")["first"]
    assert not layer.training and not layer.weight.requires_grad
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    with torch.device("meta"):
        model = Branches()
    layer = ops.make_deformable(model, "first")["first"]
    assert {p.device.type for p in layer.parameters()} == {"meta"}


def test_options_reach_the_layer():
    model = build()
    layer = ops.make_deformable(model, "first", deform_groups=4, mask_scale=1.0)["first"]
    assert layer.deform_groups == 4 and layer.mask_scale == 1
    assert layer.conv_offset.out_channels == 4 * 27


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def _with(change):
    model = build()
    change(model)
    return model


WRONG = [
    (build, dict(layers="nothing"), "'nothing' chooses no convolution; the model's are stem.0, "
     "first, ..., again"),
    (build, dict(layers=lambda name, conv: False), "the function chooses no convolution"),
    (build, dict(layers="first("), "'first(' is no regular expression"),
    (build, dict(layers="first", type="DCNv5"), "type: expected one of DCN, DCNv2, DCNv3, DCNv4"),
    (build, dict(layers="first|up"), "up: a torch.nn.modules.conv.ConvTranspose2d cannot be"),
    (build, dict(layers="first", deform_groups=3), "first: deform_groups"),
    (build, dict(layers="first", stride=2), "first: .*multiple values for keyword argument"),
    (build, dict(layers="first", depth=2), "first: .*unexpected keyword argument 'depth'"),
    (lambda: nn.Conv2d(3, 3, 1), dict(layers=".*"), "model: it is the convolution itself"),
    (lambda: _with(lambda m: setattr(m.first, "padding_mode", "circular")), dict(layers="first"),
     "first: padding_mode has to be 'zeros', got 'circular'"),
    (lambda: build(kernel_size=2, padding="same"), dict(layers="first"), "pads one side more"),
    (lambda: _with(lambda m: setattr(m, "first", Standardised(4, 8, 3))), dict(layers="first"),
     "Standardised has a computation of its own"),
    (lambda: _with(lambda m: parametrizations.weight_norm(m.first)), dict(layers="first"),
     "first: its weight is parametrized"),
    (lambda: _with(lambda m: m.first.register_forward_hook(print)), dict(layers="first"),
     "first: it has hooks"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "message"), WRONG, ids=[w[2][:30] for w in WRONG])
def test_what_does_not_fit_is_refused_and_the_model_stays(make, arguments, message):
    model = make()
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        ops.make_deformable(model, **arguments)
    assert dict(model.named_modules()) == before
