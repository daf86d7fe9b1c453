"""deform_conv2d, modulated_deform_conv2d and their modules."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from operator_suite import (
    ERRORS,
    TOLERANCE,
    OperatorSuite,
    assert_close,
    cast,
    fractions,
    native_only,
)
from oracle import bilinear, out_size, pair

from mmdcn import ops
from mmdcn.ops import reference


def oracle(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    batch, channels, height, width = input.shape
    out_channels, per_group, kh, kw = weight.shape
    out_h = out_size(height, kh, sh, ph, dh)
    out_w = out_size(width, kw, sw, pw, dw)
    out = np.zeros((batch, out_channels, out_h, out_w))
    for n, o, y, x in np.ndindex(*out.shape):
        total = 0.0 if bias is None else bias[o]
        for c, i, j in np.ndindex(per_group, kh, kw):
            channel = o // (out_channels // groups) * per_group + c
            point = channel // (channels // deform_groups) * kh * kw + i * kw + j
            sample = bilinear(
                input[n, channel],
                y * sh - ph + i * dh + offset[n, 2 * point, y, x],
                x * sw - pw + j * dw + offset[n, 2 * point + 1, y, x],
            )
            modulation = 1.0 if mask is None else mask[n, point, y, x]
            total += weight[o, c, i, j] * modulation * sample
        out[n, o, y, x] = total
    return out


ASYMMETRIC = dict(kernel=(3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))


# More rows than the native forward makes channels last at once, in every dtype.
BANDS = dict(channels=512, out_channels=4, size=(200, 32), kernel=(2, 1), bias=False)


class DeformConvSuite(OperatorSuite):
    modulated: bool
    name = "deform_conv2d"

    tiny = {
        "plain": dict(padding=1),
        "asymmetric": dict(
            batch=2, channels=6, size=(6, 5), groups=2, deform_groups=3, **ASYMMETRIC
        ),
        "groups_across_deform_groups": dict(channels=6, groups=3, deform_groups=2),
        "depthwise": dict(channels=4, out_channels=4, groups=4, bias=False),
        "1x1": dict(batch=2, kernel=(1, 1), stride=(2, 2)),
        "padding_makes_room": dict(size=(2, 1), kernel=(3, 3), padding=(1, 2)),
    }
    cases = {
        "empty_batch": dict(batch=0, padding=1),
        "batch_33": dict(batch=33, channels=20, out_channels=10, deform_groups=2, kernel=(1, 1)),
        "batch_80": dict(batch=80, channels=3, out_channels=5, padding=1),
        "5x5": dict(channels=64, out_channels=64, size=(17, 13), kernel=(5, 5), padding=2,
                    groups=4, deform_groups=2),
        "asymmetric": dict(batch=2, channels=12, out_channels=8, size=(11, 10), groups=2,
                           deform_groups=3, **ASYMMETRIC),
        "wide": dict(channels=136, out_channels=72, size=(9, 11), padding=1),
        "odd_channels": dict(channels=35, out_channels=13, size=(12, 7), padding=1, bias=False,
                             deform_groups=5),
        "many_pixels": dict(channels=8, out_channels=6, size=(70, 61), padding=1),
        "dilated": dict(channels=8, out_channels=8, size=(13, 12), padding=4, dilation=4),
        "one_pixel": dict(channels=8, out_channels=4, size=(3, 3)),
        "bands": dict(BANDS, deform_groups=2),
        "bands_and_far_offsets": dict(BANDS, stride=(3, 2), reach=90),
        "many_images": dict(batch=140, channels=256, size=(13, 7), kernel=(1, 1), stride=2),
        "integer_offsets": dict(channels=8, out_channels=4, size=(9, 9), padding=1, whole=True),
    }  # fmt: skip
    # Stride and kernel leave pixels that no point touches.
    large = dict(batch=3, channels=12, out_channels=10, size=(41, 37), kernel=(3, 2), stride=(2, 3),
                 groups=2, deform_groups=3, reach=1)  # fmt: skip
    threaded = {"large": large, "many_pixels": cases["many_pixels"], "bands": BANDS}
    errors = {
        "input_dim": (dict(input=lambda a: a["input"][0]), "input: expected a 4-dimensional"),
        "input_dtype": (dict(input=lambda a: a["input"].int()), "input: expected dtype float64"),
        "input_complex": (dict(input=lambda a: a["input"].cfloat()), "input: expected dtype"),
        "input_channels": (dict(input=lambda a: a["input"][:, :2]), "weight: expected shape"),
        "input_no_channels": (dict(input=lambda a: a["input"][:, :0]),
                              "groups: expected a divisor"),
        "input_too_small": (dict(padding=0, input=lambda a: a["input"][:, :, :2]),
                            "input: expected a padded size of at least .* kernel size 3, got 2"),
        "input_without_pixels": (
            dict(padding=2, input=lambda a: a["input"][:, :, :0]),
            "input: expected at least one pixel, got 0x5",
        ),
        "kernel_too_large": (dict(dilation=9), "input: expected a padded size of at least .* 19"),
        "weight_dim": (dict(weight=lambda a: a["weight"][0]), "weight: expected a 4-dimensional"),
        "weight_dtype": (dict(weight=lambda a: a["weight"].half()),
                         "weight: expected the dtype of input"),
        "weight_channels": (dict(weight=lambda a: a["weight"][:, :1]), "weight: expected shape"),
        "weight_empty": (dict(weight=lambda a: a["weight"][:, :, :0]),
                         "weight: expected a non-empty kernel"),
        "weight_no_output": (dict(weight=lambda a: a["weight"][:0]),
                             "weight: expected a positive number of output channels"),
        "offset_dim": (dict(offset=lambda a: a["offset"][0]), "offset: expected shape"),
        "offset_batch": (dict(offset=lambda a: torch.cat([a["offset"]] * 2)),
                         "offset: expected shape"),
        "offset_channels": (dict(offset=lambda a: a["offset"][:, :-2]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][..., 1:]), "offset: expected shape"),
        "offset_dtype": (dict(offset=lambda a: a["offset"].float()),
                         "offset: expected the dtype of input"),
        "bias_shape": (dict(bias=lambda a: a["bias"][:-1]), "bias: expected shape"),
        "bias_dtype": (dict(bias=lambda a: a["bias"].bfloat16()),
                       "bias: expected the dtype of input"),
        "stride_zero": (dict(stride=0), "stride: expected"),
        "stride_length": (dict(stride=(1, 1, 1)), "stride: expected"),
        "padding_negative": (dict(padding=(0, -1)), "padding: expected"),
        "dilation_zero": (dict(dilation=(0, 1)), "dilation: expected"),
        "groups_zero": (dict(groups=0), "groups: expected a positive number, got 0"),
        "groups": (dict(groups=3), "groups: expected a divisor of the 4 input channels, got 3"),
        "groups_of_output": (
            dict(groups=2, weight=lambda a: a["weight"][:3, :2]),
            r"weight: expected a positive number of output channels that groups \(2\) divides, "
            "got 3",
        ),
        "deform_groups_zero": (dict(deform_groups=-1), "deform_groups: expected a positive number"),
        "deform_groups": (dict(deform_groups=3), "deform_groups: expected a divisor of the 4"),
        "deform_groups_offset": (dict(deform_groups=2), "offset: expected shape"),
    }  # fmt: skip

    def make(
        self, seed=0, batch=1, channels=4, out_channels=6, size=(4, 5), kernel=(3, 3), stride=1,
        padding=0, dilation=1, groups=1, deform_groups=1, bias=True, reach=3, whole=False,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        out = [
            out_size(*values)
            for values in zip(
                size, kernel, pair(stride), pair(padding), pair(dilation), strict=True
            )
        ]
        points = deform_groups * kernel[0] * kernel[1]
        offset = fractions(rng, (batch, 2 * points, *out), -reach, reach)

        def normal(*shape):
            return torch.from_numpy(rng.standard_normal(shape))

        args = dict(
            input=normal(batch, channels, *size),
            offset=offset.round() if whole else offset,
            mask=torch.from_numpy(rng.random((batch, points, *out))),
            weight=torch.from_numpy(
                rng.standard_normal((out_channels, channels // groups, *kernel))
            ),
            bias=normal(out_channels) if bias else None,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            deform_groups=deform_groups,
        )
        if not self.modulated:
            del args["mask"]
        return args

    def random_config(self, draw):
        def ints(low, high):
            return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

        groups, deform_groups = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3), (3, 3)]))
        per_group = {(2, 3): 6}.get((groups, deform_groups), groups * deform_groups)
        kernel, dilation, padding = ints(1, 4), ints(1, 3), ints(0, 3)
        smallest = [
            max(1, d * (k - 1) + 1 - 2 * p)
            for k, d, p in zip(kernel, dilation, padding, strict=True)
        ]
        extra = ints(0, 8)
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=per_group * draw(st.integers(1, 9)),
            out_channels=groups * draw(st.integers(1, 9)),
            size=(smallest[0] + extra[0], smallest[1] + extra[1]),
            kernel=kernel,
            stride=ints(1, 3),
            padding=padding,
            dilation=dilation,
            groups=groups,
            deform_groups=deform_groups,
            bias=draw(st.booleans()),
            reach=draw(st.sampled_from([1, 3, 20])),
            whole=draw(st.booleans()),
        )

    def offsets(self, args):
        return args["offset"].unflatten(1, (-1, 2)).movedim(2, -1)

    def flops(self, args, output):
        # A multiply-add counts as two operations. A sample has four of them, and one more for
        # its mask.
        pixels = output.numel() // output.shape[1]
        product = output.numel() * args["weight"][0].numel()
        samples = pixels * args["input"].shape[1] * args["weight"][0, 0].numel()
        sampling = samples * (5 if self.modulated else 4)
        # Backward: products for the columns and for the weight; samples for the weight, for the
        # offsets, and scattered to the input.
        return 2 * (product + sampling), 2 * (2 * product + 3 * sampling)

    def op_arguments(self, args):
        return super().op_arguments({"mask": None, **args})

    @native_only
    def test_memory_format_is_kept(self):
        args = self.make(**self.large)
        expected = self.run(self.function, args)
        args["input"] = args["input"].contiguous(memory_format=torch.channels_last)
        actual = self.run(self.function, args)
        for tensors, memory_format in (
            (expected, torch.contiguous_format),
            (actual, torch.channels_last),
        ):
            assert tensors["output"].is_contiguous(memory_format=memory_format)
            assert tensors["input"].is_contiguous(memory_format=memory_format)
        assert_close(actual, expected, TOLERANCE[torch.float64])
        meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in args.items()}
        assert self.function(**meta).stride() == actual["output"].stride()

    @native_only
    def test_bands_and_offsets_that_are_not_finite(self):
        args = self.make(**BANDS)
        offsets = args["offset"].view(-1)
        offsets[::7], offsets[1::7], offsets[2::7] = float("nan"), float("inf"), -1e30
        torch.testing.assert_close(self.function(**args), self.reference(**args))

    @native_only
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_groups_with_odd_sizes_do_not_mix(self, dtype):
        # Native products take pairs of bfloat16 along channels, output channels and pixels.
        config = dict(channels=6, out_channels=10, groups=2, deform_groups=2, size=(5, 7))
        args = cast(self.make(**config, padding=1), dtype)
        grad = torch.randn_like(self.function(**args))
        expected = self.run(self.function, args, grad)
        args["input"][:, 3:] = float("nan")
        grad[:, 5:] = float("nan")
        actual = self.run(self.function, args, grad)
        halves = dict(output=1, input=1, offset=1, weight=0, bias=0, mask=1)
        for name, value in actual.items():
            first, second = value.chunk(2, dim=halves[name])
            assert torch.equal(first, expected[name].chunk(2, dim=halves[name])[0]), name
            assert second.isnan().any(), name

    @native_only
    def test_image_too_large_for_the_kernels(self):
        args = self.make()
        args["input"] = torch.zeros(1, 4, 1, 1, dtype=torch.float64).expand(1, 4, 2**16, 2**15)
        with pytest.raises(ERRORS, match="input: expected fewer than 2.30 pixels"):
            self.function(**args)


class TestDeformConv2d(DeformConvSuite):
    modulated = False
    function = staticmethod(ops.deform_conv2d)
    reference = staticmethod(reference.deform_conv2d)
    differentiable = ("input", "offset", "weight", "bias")

    @staticmethod
    def oracle(**args):
        return oracle(mask=None, **args)


class TestModulatedDeformConv2d(DeformConvSuite):
    modulated = True
    function = staticmethod(ops.modulated_deform_conv2d)
    reference = staticmethod(reference.modulated_deform_conv2d)
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset", "mask", "weight", "bias")
    errors = {
        **DeformConvSuite.errors,
        "mask_dim": (dict(mask=lambda a: a["mask"][0]), "mask: expected shape"),
        "mask_channels": (dict(mask=lambda a: a["mask"][:, 1:]), "mask: expected shape"),
        "mask_size": (dict(mask=lambda a: a["mask"][:, :, 1:]), "mask: expected shape"),
        "mask_dtype": (dict(mask=lambda a: a["mask"].bool()), "mask: expected the dtype of input"),
    }

    @native_only
    def test_mask_of_ones_is_version_1(self):
        args = self.make(**self.large)
        del args["mask"]
        ones = torch.ones(*args["offset"].shape, dtype=torch.float64)[:, ::2]
        assert torch.equal(self.function(**args, mask=ones), ops.deform_conv2d(**args))

    def test_zero_offsets_are_a_convolution(self, implementation):
        args = self.make(**self.large)
        args["offset"].zero_()
        args["mask"].fill_(0.5)
        expected = torch.nn.functional.conv2d(
            args["input"], args["weight"] / 2, args["bias"], args["stride"], groups=args["groups"]
        )
        assert_close({"": implementation(**args)}, {"": expected}, TOLERANCE[torch.float64])
