"""deform_conv2d and modulated_deform_conv2d."""

import pytest
import torch
from suites.compare import (
    ERRORS,
    NATIVE_ONLY,
    TOLERANCE,
    assert_close,
    cast,
)
from suites.deform_conv2d import BANDS, DeformConv2d, ModulatedDeformConv2d

from mmdcn import ops


@pytest.mark.suites.with_args(DeformConv2d)
@NATIVE_ONLY
def test_memory_format_is_kept(suite):
    args = suite.make(**suite.large)
    expected = suite.run(suite.function, args)
    args["input"] = args["input"].contiguous(memory_format=torch.channels_last)
    actual = suite.run(suite.function, args)
    for tensors, memory_format in (
        (expected, torch.contiguous_format),
        (actual, torch.channels_last),
    ):
        assert tensors["output"].is_contiguous(memory_format=memory_format)
        assert tensors["input"].is_contiguous(memory_format=memory_format)
    assert_close(actual, expected, TOLERANCE[torch.float64])
    meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in args.items()}
    assert suite.function(**meta).stride() == actual["output"].stride()


@pytest.mark.suites.with_args(DeformConv2d)
@NATIVE_ONLY
def test_bands_and_offsets_that_are_not_finite(suite):
    args = suite.make(**BANDS)
    offsets = args["offset"].view(-1)
    offsets[::7], offsets[1::7], offsets[2::7] = float("nan"), float("inf"), -1e30
    torch.testing.assert_close(suite.function(**args), suite.reference(**args))


@pytest.mark.suites.with_args(DeformConv2d)
@NATIVE_ONLY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_groups_with_odd_sizes_do_not_mix(suite, dtype):
    # Native products take pairs of bfloat16 along channels, output channels and pixels.
    config = dict(channels=6, out_channels=10, groups=2, deform_groups=2, size=(5, 7))
    args = cast(suite.make(**config, padding=1), dtype)
    grad = torch.randn_like(suite.function(**args))
    expected = suite.run(suite.function, args, grad)
    args["input"][:, 3:] = float("nan")
    grad[:, 5:] = float("nan")
    actual = suite.run(suite.function, args, grad)
    halves = dict(output=1, input=1, offset=1, weight=0, bias=0, mask=1)
    for name, value in actual.items():
        first, second = value.chunk(2, dim=halves[name])
        assert torch.equal(first, expected[name].chunk(2, dim=halves[name])[0]), name
        assert second.isnan().any(), name


@pytest.mark.suites.with_args(DeformConv2d)
@NATIVE_ONLY
def test_image_too_large_for_the_kernels(suite):
    args = suite.make()
    args["input"] = torch.zeros(1, 4, 1, 1, dtype=torch.float64).expand(1, 4, 2**16, 2**15)
    with pytest.raises(ERRORS, match="input: expected .* fewer than 2.30 pixels"):
        suite.function(**args)


@pytest.mark.suites.with_args(ModulatedDeformConv2d)
@NATIVE_ONLY
def test_mask_of_ones_is_version_1(suite):
    args = suite.make(**suite.large)
    del args["mask"]
    ones = torch.ones(*args["offset"].shape, dtype=torch.float64)[:, ::2]
    assert torch.equal(suite.function(**args, mask=ones), ops.deform_conv2d(**args))


@pytest.mark.suites.with_args(ModulatedDeformConv2d)
def test_zero_offsets_are_a_convolution(suite, implementation):
    args = suite.make(**suite.large)
    args["offset"].zero_()
    args["mask"].fill_(0.5)
    expected = torch.nn.functional.conv2d(
        args["input"], args["weight"] / 2, args["bias"], args["stride"], groups=args["groups"]
    )
    assert_close({"": implementation(**args)}, {"": expected}, TOLERANCE[torch.float64])
