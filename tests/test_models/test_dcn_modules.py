"""What InternImage does not use of the modules DCNv3 and DCNv4."""

import pytest
import torch
from torch.nn import functional as F

from mmdcn.ops import DCNv3, DCNv4, reference


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module.double()


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.randn(2, 6, 9, 24, dtype=torch.float64)


def test_dcnv4_takes_flattened_maps(image):
    module = randomised(DCNv4(24, group=3, dw_kernel_size=3))
    expected = module(image)
    assert torch.equal(module(image.flatten(1, 2), shape=(6, 9)), expected.flatten(1, 2))
    square = image[:, :, :6].contiguous()
    assert torch.equal(module(square.flatten(1, 2)), module(square).flatten(1, 2))


@pytest.mark.parametrize("shape", [None, (6, 8)])
def test_dcnv4_refuses_a_shape_that_does_not_fit(image, shape):
    with pytest.raises(ValueError, match=r"shape: .*H \* W = 54.*got"):
        randomised(DCNv4(24, group=3))(image.flatten(1, 2), shape)


def test_dcnv4_gate_comes_from_the_output(image):
    module = randomised(DCNv4(24, group=3, center_feature_scale=True))
    p = module.state_dict()
    value = F.linear(image, p["value_proj.weight"], p["value_proj.bias"])
    offset_mask = F.linear(image, p["offset_mask.weight"], p["offset_mask.bias"])
    y = reference.dcnv4(value, offset_mask, groups=3)
    weight, bias = p["center_feature_scale_proj_weight"], p["center_feature_scale_proj_bias"]
    gate = F.linear(y, weight, bias).sigmoid().repeat_interleave(8, -1)
    expected = F.linear(
        y * (1 - gate) + value * gate, p["output_proj.weight"], p["output_proj.bias"]
    )
    torch.testing.assert_close(module(image), expected)


def test_dcnv4_without_pointwise_is_the_operator(image):
    module = randomised(DCNv4(24, group=3, without_pointwise=True, remove_center=True))
    assert set(module.state_dict()) == {"offset_mask.weight", "offset_mask.bias"}
    assert module.offset_mask.weight.shape == (72, 24)  # 3 groups of 8 taps with 3 numbers each
    expected = reference.dcnv4(image, module.offset_mask(image), groups=3, remove_center=True)
    torch.testing.assert_close(module(image), expected)


@pytest.mark.parametrize("module", [DCNv3, DCNv4])
def test_an_untrained_layer_averages_or_gives_nothing(image, module):
    layer = module(24, group=3, kernel_size=5, pad=2).double()
    output = layer(image)
    if module is DCNv4:  # weights start at 0
        assert not output.any()
        return
    value = layer.input_proj(image).movedim(-1, 1)
    mean = F.avg_pool2d(value, 5, stride=1, padding=2).movedim(1, -1)
    torch.testing.assert_close(output, layer.output_proj(mean))


@pytest.mark.parametrize("module", [DCNv3, DCNv4])
def test_channels_must_be_divisible(module):
    with pytest.raises(ValueError, match=r"channels: expected a multiple of group \(5\), got 24"):
        module(24, group=5)
