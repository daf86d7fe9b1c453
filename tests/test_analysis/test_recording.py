"""What is recorded of each operator, against numbers of its reference and its gradient."""

import math

import pytest
import torch
from suites.compare import NATIVE_ONLY
from torch import nn

from mmdcn import _extension, ops
from mmdcn.analysis import map_to_image, record

pytestmark = NATIVE_ONLY


class Called(nn.Module):
    """A model that calls one operator with tensors of its own."""

    def __init__(self, function, *args, **kwargs) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, input):
        return self.function(self.inner(input), *self.args, **self.kwargs)


def rand(*shape, scale=1.0):
    return scale * torch.randn(shape, dtype=torch.float64)


ROIS = torch.tensor([[0, 1.3, 2.1, 21.4, 17.7], [1, 4.2, 0.3, 25.0, 22.9]], dtype=torch.float64)
WINDOW = dict(stride=2, padding=1, dilation=2)


def models():
    torch.manual_seed(0)
    weight = rand(6, 2, 3, 3)
    yield (
        "deform_conv2d",
        Called(ops.deform_conv2d, rand(2, 36, 4, 5), weight, groups=2, deform_groups=2, **WINDOW),
        rand(2, 4, 10, 12),
        "offset",
    )
    yield (
        "modulated_deform_conv2d",
        Called(
            ops.modulated_deform_conv2d,
            rand(2, 36, 4, 5),
            torch.rand(2, 18, 4, 5, dtype=torch.float64),
            weight,
            groups=2,
            deform_groups=2,
            **WINDOW,
        ),
        rand(2, 4, 10, 12),
        "offset",
    )
    yield (
        "dcnv3",
        Called(
            ops.dcnv3,
            rand(2, 4, 5, 2 * 8 * 2),
            rand(2, 4, 5, 2 * 8),
            groups=2,
            offset_scale=1.7,
            remove_center=True,
            mask_softmax=True,
            **WINDOW,
        ),
        rand(2, 10, 12, 4),
        "offset",
    )
    yield (
        "dcnv4",
        Called(ops.dcnv4, rand(2, 4, 5, 56), groups=2, offset_scale=0.6, **WINDOW),
        rand(2, 10, 12, 4),
        "offset",
    )
    roi = dict(output_size=(2, 3), spatial_scale=0.5)
    yield (
        "deform_roi_pool",
        Called(ops.deform_roi_pool, ROIS, rand(2, 2, 2, 3), rand(2, 1, 2, 3), gamma=0.3, **roi),
        rand(2, 3, 12, 13),
        "roi",
    )
    yield (
        "deform_ps_roi_pool",
        Called(
            ops.deform_ps_roi_pool,
            ROIS,
            rand(2, 4, 2, 3),
            rand(2, 2, 2, 3),
            output_channels=4,
            group_size=2,
            trans_std=0.2,
            **roi,
        ),
        rand(2, 16, 12, 13),
        "roi",
    )


CASES = {name: rest for name, *rest in models()}


@pytest.mark.parametrize("name", CASES)
def test_probes_are_shifts_of_the_locations(name):
    """Shifting every sample by a constant is shifting the map the other way: by whole pixels, and
    away from its borders, the output is that of the moved map."""
    model, input, kind = CASES[name]
    axes = (1, 2) if name.startswith("dcnv") else (2, 3)
    if kind == "roi":
        input = torch.nn.functional.pad(input, (9,) * 4)
    else:
        for axis in axes:
            input = input.index_fill(axis, torch.tensor([0, 1, -1 % input.shape[axis]]), 0.0)
    moved = input.roll((1, 1), axes)
    expected = model(input)
    output, (sampling,) = record(model, lambda: model(moved), probes=True, shift=1.0)
    torch.testing.assert_close(output, expected)
    assert torch.equal(sampling.probe, torch.ones_like(sampling.locations))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name):
    model, input, _ = CASES[name]
    output, (sampling,) = record(model, lambda: model(input), probes=True)
    torch.testing.assert_close(output, model(input), rtol=0, atol=0)
    cotangent = torch.randn_like(output)
    (gradient,) = torch.autograd.grad((output * cotangent).sum(), sampling.probe)
    step = 1e-6

    def moved(shift):
        result, _ = record(model, lambda: model(input), probes=True, shift=shift)
        return (result * cotangent).sum()

    slope = (moved(step) - moved(-step)) / (2 * step)
    torch.testing.assert_close(gradient.sum(), slope.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_weights(name):
    model, input, kind = CASES[name]
    _, (sampling,) = record(model, lambda: model(input))
    assert sampling.layer == "" and sampling.probe is None
    assert sampling.operator == name.removeprefix("modulated_")
    *axes, last = sampling.locations.shape
    assert last == 2
    size = input.shape[1:3] if name.startswith("dcnv") else input.shape[2:]
    assert sampling.map_size == tuple(size)
    if kind == "roi":
        classes = 2 if name == "deform_ps_roi_pool" else 1
        assert axes == [2, classes, 2, 3] and sampling.bin_sizes.shape == (2, 2)
        assert not sampling.is_window
    else:
        assert axes == [2, 4, 5, 2, 8 if name == "dcnv3" else 9]
    if name == "deform_conv2d":
        assert sampling.weights is None
    else:
        assert sampling.weights.shape == sampling.locations.shape[:-1]
    if name == "dcnv3":
        torch.testing.assert_close(sampling.weights.sum(-1), torch.ones(2, 4, 5, 2).double())


def test_locations_of_a_convolution_by_loops():
    model, input, _ = CASES["deform_conv2d"]
    offset = model.args[0]
    _, (sampling,) = record(model, lambda: model(input))
    for n, h, w, d, i, j in [(0, 0, 0, 0, 0, 0), (1, 3, 4, 1, 2, 1), (0, 2, 1, 1, 0, 2)]:
        k = 3 * i + j
        channel = 2 * (9 * d + k)
        y = h * 2 - 1 + 2 * i + offset[n, channel, h, w]
        x = w * 2 - 1 + 2 * j + offset[n, channel + 1, h, w]
        torch.testing.assert_close(sampling.locations[n, h, w, d, k], torch.stack([x, y]))


def test_bins_by_loops():
    model, input, _ = CASES["deform_roi_pool"]
    offset = model.args[1]
    _, (sampling,) = record(model, lambda: model(input))
    for r, i, j in [(0, 0, 0), (1, 1, 2)]:
        x1, y1, x2, y2 = (ROIS[r, 1:] * 0.5 - 0.5).tolist()
        width, height = x2 - x1, y2 - y1
        x = x1 + j * width / 3 + 0.3 * width * offset[r, 0, i, j].item()
        y = y1 + i * height / 2 + 0.3 * height * offset[r, 1, i, j].item()
        found = sampling.locations[r, 0, i, j].tolist()
        assert found == pytest.approx([x, y])
        assert sampling.bin_sizes[r].tolist() == pytest.approx([width / 3, height / 2])


def test_layers_have_their_names():
    inner = nn.Sequential(ops.DeformConv2dPack(2, 2, 3, padding=1))
    model = nn.Sequential(nn.Conv2d(2, 2, 1), inner, ops.DCNv3Conv2d(2, 2, 3, padding=1))
    _, found = record(model, lambda: model(torch.zeros(1, 2, 5, 5)))
    assert [(s.layer, s.operator) for s in found] == [("1.0", "deform_conv2d"), ("2", "dcnv3")]


@pytest.mark.parametrize("stride, dilation, groups", [(1, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_plain_convolutions_are_deformable_ones_with_zero_offsets(stride, dilation, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride, 2, dilation, groups).double()
    model = nn.Sequential(conv, nn.ReLU())
    input = rand(1, 4, 9, 8)
    output, (sampling,) = record(model, lambda: model(input), plain=["0"])
    torch.testing.assert_close(output, model(input))
    assert sampling.operator == "conv2d" and sampling.weights is None
    start = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(sampling.locations[0, 0, 0, 0, 0], start)
    torch.testing.assert_close(
        sampling.locations[0, 1, 2, 0, 8],
        start
        + torch.tensor([2 * stride + 2 * dilation, stride + 2 * dilation], dtype=torch.float64),
    )


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_is_a_deformable_pooling_without_offsets(ratio):
    layer = pytest.importorskip("mmcv.ops").RoIAlign(3, 0.5, ratio, aligned=True)
    model = nn.ModuleDict({"pool": layer})
    input, rois = (
        rand(2, 3, 8, 9),
        torch.tensor([[1.0, 2.3, 3.1, 14, 11], [0, 0.5, 1, 6, 15]]).double(),
    )
    output, (sampling,) = record(
        model, lambda: model["pool"](input, rois), probes=True, plain=["pool"]
    )
    torch.testing.assert_close(output, layer(input, rois))
    assert (sampling.layer, sampling.operator) == ("pool", "roi_align")
    assert "forward" not in vars(layer)
    # The first bin of the first RoI begins at its corner.
    torch.testing.assert_close(
        sampling.locations[0].reshape(-1, 2)[0], torch.tensor([0.65, 1.05], dtype=torch.float64)
    )
    (gradient,) = torch.autograd.grad(output[0, :, 1, 1].sum(), sampling.probe)

    def moved(shift):
        return layer(input, rois + 2 * torch.tensor([0, shift, 0, shift, 0]))[0, :, 1, 1].sum()

    torch.testing.assert_close(
        gradient[0].reshape(9, 2)[4, 0], (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-7
    )


def test_frozen_predictions_pass_no_gradient():
    torch.manual_seed(0)
    layer = ops.ModulatedDeformConv2dPack(2, 2, 3, padding=1)
    nn.init.normal_(layer.conv_offset.weight)
    image = torch.randn(1, 2, 6, 6)
    for freeze in (False, True):
        output, _ = record(layer, lambda: layer(image), probes=True, freeze=freeze)
        layer.zero_grad()
        output.sum().backward()
        gradient = layer.conv_offset.weight.grad
        assert (gradient is None or not gradient.any()) == freeze


def test_hooks_are_gone_even_after_an_error():
    layer = ops.DeformConv2dPack(2, 2, 3)
    with pytest.raises(RuntimeError):
        record(layer, lambda: layer(torch.zeros(1, 3, 5, 5)))
    assert not layer._forward_hooks and not layer._forward_pre_hooks


@pytest.mark.parametrize(
    "plain, named",
    [("1", "ReLU"), ("2", "Conv2d"), ("3", "RoIAlign"), ("nothing", "no module")],
)
def test_plain_names_are_checked(plain, named):
    class RoIAlign(nn.Module):
        aligned = False

    reflected = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), reflected, RoIAlign())
    with pytest.raises(ValueError, match=f"plain: expected .*{plain!r}, which is {named}"):
        record(model, lambda: None, plain=[plain])


def test_without_native_operators_it_says_so(monkeypatch):
    monkeypatch.setitem(_extension._missing, "cpu", "there is no library")
    with pytest.raises(RuntimeError, match="native operators, which are missing: there is no lib"):
        record(nn.Identity(), lambda: None)


def test_pixels_of_a_map_lie_in_the_middle_of_their_part_of_the_image():
    points = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    found = map_to_image(points, (2, 4), (16, 64))
    assert found.tolist() == [[7.5, 3.5], [55.5, 11.5]]
    assert math.isclose(map_to_image(points, (2, 4), (2, 4))[1, 0], 3)


@pytest.mark.parametrize("name", ["dcnv3", "dcnv4", "deform_roi_pool", "deform_ps_roi_pool"])
def test_offsets_without_effect_change_nothing(name):
    """A factor of 0 on the offsets leaves nothing to shift, and no value that is not finite."""
    model, input, _ = CASES[name]
    factor = {"deform_roi_pool": "gamma", "deform_ps_roi_pool": "trans_std"}.get(
        name, "offset_scale"
    )
    still = Called(model.function, *model.args, **model.kwargs | {factor: 0.0})
    output, (sampling,) = record(still, lambda: still(input), probes=True, shift=0.5)
    torch.testing.assert_close(output, still(input), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(output.sum(), sampling.probe)
    assert not gradient.any()


def test_device_without_kernels_is_told(monkeypatch):
    monkeypatch.setitem(_extension._missing, "meta", "there are no kernels")
    with pytest.raises(RuntimeError, match="are missing: there are no kernels"):
        record(nn.Conv2d(1, 1, 1, device="meta"), lambda: None)
