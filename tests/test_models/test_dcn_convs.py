"""DCNv3 and DCNv4 in the place of a convolution, alone and in ResNets."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch.nn import functional as F

import mmdcn.models  # noqa: F401
from mmdcn.ops import DCNv3Conv2d, DCNv4Conv2d, reference

LAYERS = {"mmdcn.DCNv3": DCNv3Conv2d, "mmdcn.DCNv4": DCNv4Conv2d}
WINDOWS = {
    "same": dict(kernel_size=3, padding=1),
    "stride": dict(kernel_size=3, padding=1, stride=2),
    "dilation": dict(kernel_size=3, padding=2, dilation=2),
    "asymmetric": dict(kernel_size=(3, 5), padding=(0, 2), stride=(2, 1), dilation=(1, 2)),
}


@pytest.fixture(params=LAYERS)
def layer_type(request):
    return request.param


def build(layer_type, *args, **kwargs):
    torch.manual_seed(0)
    return MODELS.get(layer_type)(*args, **kwargs)


def plain_layer(layer, x, kernel_size, padding, stride=1, dilation=1):
    """What the layer computes, from its state dict and the reference operators."""
    p = layer.state_dict()
    taps = F.unfold(x[:1], kernel_size, dilation, padding, stride).shape[1] // x.shape[1]
    groups = layer.deform_groups

    def conv(t, key, **kwargs):
        return F.conv2d(t, p[f"{key}.weight"], p.get(f"{key}.bias"), **kwargs)

    def linear(t, key):
        return F.linear(t, p[f"{key}.weight"], p[f"{key}.bias"])

    window = dict(padding=padding, stride=stride, dilation=dilation)
    value = conv(x, "input_proj", groups=layer.groups).movedim(1, -1)
    flash = isinstance(layer, DCNv4Conv2d)
    query = conv(
        x, "offset_mask_dw" if flash else "dw_conv.0", groups=x.shape[1], **window
    ).movedim(1, -1)
    options = dict(
        kernel_size=kernel_size, groups=groups, offset_scale=layer.offset_scale, **window
    )
    if flash:
        y = reference.dcnv4(value, linear(query, "offset_mask"), **options)
    else:
        weight, bias = p["dw_conv.1.1.weight"], p["dw_conv.1.1.bias"]
        query = F.gelu(F.layer_norm(query, weight.shape, weight, bias, eps=1e-6))
        mask = linear(query, "mask").unflatten(-1, (groups, taps)).softmax(-1).flatten(-2)
        y = reference.dcnv3(value, linear(query, "offset"), mask, **options)
    return conv(y.movedim(-1, 1), "output_proj", groups=layer.groups)


@pytest.mark.parametrize("window", WINDOWS)
def test_equals_its_parts_on_the_reference_operators(layer_type, window):
    layer = build(layer_type, 24, 40, **WINDOWS[window], groups=2, offset_scale=1.5).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(2, 24, 11, 14, dtype=torch.float64)
    expected = plain_layer(layer, x, **WINDOWS[window])
    size = F.conv2d(x, x.new_zeros(1, 24, *_pair(layer.kernel_size)), stride=layer.stride,
                    padding=layer.padding, dilation=layer.dilation).shape[2:]  # fmt: skip
    assert expected.shape == (2, 40, *size)
    torch.testing.assert_close(layer(x), expected)


def _pair(value):
    return (value, value) if isinstance(value, int) else value


@pytest.mark.parametrize("window", WINDOWS)
def test_untrained_layer_is_a_convolution_with_equal_taps(layer_type, window):
    layer = build(layer_type, 24, 40, **WINDOWS[window]).double()
    x = torch.randn(2, 24, 11, 14, dtype=torch.float64)
    mixed = (layer.output_proj.weight.flatten(1) @ layer.input_proj.weight.flatten(1))[..., None]
    kernel = mixed.expand(-1, -1, layer.taps).unflatten(-1, layer.kernel_size) / layer.taps
    expected = F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "channels, groups", [(3, 1), (16, 1), (24, 2), (40, 4), (64, 4), (512, 32), (17, 17)]
)
def test_default_groups_have_16_channels_or_fewer(layer_type, channels, groups):
    assert build(layer_type, 8, channels, 3).deform_groups == groups
    assert build(layer_type, 8, channels, 3, deform_groups=1).deform_groups == 1


def test_keeps_the_memory_format(layer_type):
    layer = build(layer_type, 16, 32, 3, stride=2, padding=1)
    x = torch.randn(2, 16, 8, 10)
    output = layer(x)
    assert output.is_contiguous()
    output_last = layer(x.contiguous(memory_format=torch.channels_last))
    assert output_last.is_contiguous(memory_format=torch.channels_last)
    assert not output_last.is_contiguous()
    torch.testing.assert_close(output_last, output)


def test_the_name_stands_for_the_convolution(layer_type):
    assert MODELS.get(layer_type) is LAYERS[layer_type]


def test_autocast_trains(layer_type):
    layer = build(layer_type, 16, 32, 3, padding=1)
    x = torch.randn(2, 16, 8, 10)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x), rtol=0.05, atol=0.05)
    output.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(
    "kwargs, match",
    [
        (dict(deform_groups=5), "deform_groups: expected a divisor of the 32 output channels"),
        (dict(groups=3), "groups: expected a divisor of the 16 input channels, got 3"),
        (dict(kernel_size=(3, 3, 3)), "kernel_size: expected one or two integers"),
    ],
)
def test_wrong_arguments(layer_type, kwargs, match):
    with pytest.raises(ValueError, match=match):
        build(layer_type, 16, 32, **{"kernel_size": 3, **kwargs})


def test_serves_as_conv_cfg(layer_type):
    bricks = pytest.importorskip("mmcv.cnn")
    cfg = dict(conv_cfg=dict(type=layer_type), norm_cfg=dict(type="BN"))
    module = bricks.ConvModule(16, 32, 3, stride=2, padding=1, **cfg)
    assert module.conv.deform_groups == 2 and module.conv.output_proj.bias is None
    assert (module.in_channels, module.out_channels, module.stride) == (16, 32, (2, 2))
    assert module(torch.randn(2, 16, 9, 9)).shape == (2, 32, 5, 5)


class TestInResNet:
    """Unmodified ResNets of MMDetection and MMSegmentation."""

    @pytest.fixture(params=["mmdet", "mmseg"])
    def scope(self, request):
        pytest.importorskip(request.param)
        with DefaultScope.overwrite_default_scope(request.param):
            yield request.param

    def resnet(self, scope, layer_type, fallback_on_stride=False, **kwargs):
        torch.manual_seed(0)
        return MODELS.build(
            dict(
                type={"mmdet": "ResNet", "mmseg": "ResNetV1c"}[scope],
                depth=50,
                base_channels=8,
                stem_channels=8,
                dcn=dict(type=layer_type, fallback_on_stride=fallback_on_stride),
                stage_with_dcn=(False, True, True, True),
                **kwargs,
            )
        )

    def layers(self, model):
        kinds = tuple(LAYERS.values())
        return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}

    @pytest.mark.parametrize("fallback", [False, True])
    def test_replaces_conv2_of_the_chosen_stages(self, scope, layer_type, fallback):
        model = self.resnet(scope, layer_type, fallback)
        names = {
            f"layer{stage}.{block}.conv2"
            for stage, blocks in ((2, 4), (3, 6), (4, 3))
            for block in range(blocks)
        }
        # Both ResNets drop the option after the first block that has it, which is the only one that
        # falls back to a plain convolution.
        assert set(self.layers(model)) == names - ({"layer2.0.conv2"} if fallback else set())
        outputs = model(torch.randn(1, 3, 64, 72))
        assert [o.shape[1:] for o in outputs] == [
            (32, 16, 18), (64, 8, 9), (128, 4, 5), (256, 2, 3)
        ]  # fmt: skip

    def test_starts_without_deformation(self, scope, layer_type):
        # init_weights() runs the Kaiming initialisation of the ResNet
        model = self.resnet(scope, layer_type)
        model.init_weights()
        for layer in self.layers(model).values():
            fresh = LAYERS[layer_type](
                layer.in_channels, layer.out_channels, 3, layer.stride, 1, bias=False
            )
            for key, value in fresh.state_dict().items():
                if key.startswith(("offset.", "mask.", "offset_mask.")):
                    assert torch.equal(layer.state_dict()[key], value), key
            assert layer.output_proj.weight.std() > 0.01

    def test_backward_reaches_every_parameter(self, scope, layer_type):
        model = self.resnet(scope, layer_type, with_cp=True)
        for layer in self.layers(model).values():
            for name, p in layer.named_parameters():
                if name.startswith("offset"):
                    torch.nn.init.normal_(p, std=0.05)
        image = torch.randn(2, 3, 64, 64, requires_grad=True)
        sum(o.square().mean() for o in model(image)).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        assert [n for n, g in grads.items() if g is None or not g.isfinite().all()] == []
        assert all(
            g.any() for n, g in grads.items() if n.endswith(("offset.weight", "offset_mask.weight"))
        )

    def test_state_dict_round_trip(self, scope, layer_type, tmp_path):
        first = self.resnet(scope, layer_type)
        with torch.no_grad():
            for p in first.parameters():
                p.normal_()
        torch.save(first.state_dict(), tmp_path / "weights.pth")
        second = self.resnet(scope, layer_type)
        second.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
        assert all(
            torch.equal(a, b)
            for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        )
