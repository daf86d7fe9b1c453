"""deform_conv2d and modulated_deform_conv2d."""

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from .oracle import bilinear, out_size, pair
from .suite import Suite, fractions


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


class DeformConv2d(Suite):
    modulated = False
    name = operator = "deform_conv2d"
    differentiable = ("input", "offset", "weight", "bias")

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
    emulated = dict(large, batch=2, size=(9, 11))
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

    def operator_arguments(self, args):
        return super().operator_arguments({"mask": None, **args})

    def oracle(self, **args):
        return oracle(**{"mask": None, **args})


class ModulatedDeformConv2d(DeformConv2d):
    modulated = True
    name = "modulated_deform_conv2d"
    differentiable = ("input", "offset", "mask", "weight", "bias")
    errors = {
        **DeformConv2d.errors,
        "mask_dim": (dict(mask=lambda a: a["mask"][0]), "mask: expected shape"),
        "mask_channels": (dict(mask=lambda a: a["mask"][:, 1:]), "mask: expected shape"),
        "mask_size": (dict(mask=lambda a: a["mask"][:, :, 1:]), "mask: expected shape"),
        "mask_dtype": (dict(mask=lambda a: a["mask"].bool()), "mask: expected the dtype of input"),
    }


SUITES = [DeformConv2d, ModulatedDeformConv2d]

IMAGE, OFFSET, MASK = (2, 16, 6, 7), (2, 18, 6, 7), (2, 9, 6, 7)
MODULES = {
    "DeformConv2d": (lambda: ops.DeformConv2d(16, 8, 3, padding=1), [IMAGE, OFFSET]),
    "DeformConv2dPack": (lambda: ops.DeformConv2dPack(16, 8, 3, padding=1), [IMAGE]),
    "ModulatedDeformConv2d": (
        lambda: ops.ModulatedDeformConv2d(16, 8, 3, padding=1),
        [IMAGE, OFFSET, MASK],
    ),
    "ModulatedDeformConv2dPack": (
        lambda: ops.ModulatedDeformConv2dPack(16, 8, 3, padding=1),
        [IMAGE],
    ),
}
