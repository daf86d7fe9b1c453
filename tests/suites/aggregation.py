"""What the suites of dcnv3 and dcnv4 share."""

import numpy as np
import torch
from hypothesis import strategies as st

from .oracle import out_size, pair
from .suite import Suite, fractions


def taps_of(kernel, remove_center):
    """(row, column) of the taps in their order: width outer, height inner."""
    kh, kw = kernel
    taps = [(j, i) for i in range(kw) for j in range(kh)]
    if remove_center:
        taps.remove((kh // 2, kw // 2))
    return taps


# The native backward cuts it into bands of rows; one point in ten leaves the rows of its band.
STRAYS = dict(batch=2, channels=24, groups=3, size=(60, 21), reach=8)


class AggregationSuite(Suite):
    """What the two operators share."""

    tiny = {
        "plain": dict(),
        "asymmetric": dict(batch=2, size=(4, 5), channels=6, groups=3, kernel=(3, 2), stride=(2, 1),
                           padding=(1, 2), dilation=(1, 2)),
        "remove_center": dict(remove_center=True, scale=0.7),
        "even_kernel": dict(kernel=(2, 4), padding=(1, 2), scale=2.0),
        "dilated": dict(size=(5, 4), kernel=(3, 1), dilation=(2, 1), padding=(2, 0), scale=1.5),
        "1x1": dict(kernel=(1, 1), padding=0, stride=2, groups=1),
    }  # fmt: skip
    cases = {
        "empty_batch": dict(batch=0),
        "batch_33": dict(batch=33, channels=16, groups=2),
        "batch_504": dict(batch=504, size=(3, 4), channels=16, groups=1),
        "1_channel_a_group": dict(channels=5, groups=5, size=(9, 7)),
        "3_channels_a_group": dict(channels=12, groups=4, size=(9, 7)),
        "8_channels_a_group": dict(channels=32, groups=4, size=(13, 9)),
        "16_channels_a_group": dict(channels=64, groups=4, size=(13, 9), stride=2),
        "33_channels_a_group": dict(channels=66, groups=2, size=(7, 8)),
        "80_groups": dict(batch=2, channels=1280, groups=80, size=(5, 4)),
        "5x5": dict(channels=16, groups=2, size=(11, 12), kernel=(5, 5), padding=2),
        "7x7": dict(channels=8, groups=1, size=(11, 12), kernel=(7, 7), padding=3, stride=2),
        "remove_center": dict(channels=16, groups=2, size=(8, 9), remove_center=True),
        "even_kernel": dict(channels=16, groups=2, size=(8, 9), kernel=(4, 2), stride=2, scale=2.0),
        "asymmetric": dict(batch=2, size=(12, 9), channels=24, groups=3, kernel=(3, 2),
                           stride=(2, 1), padding=(1, 2), dilation=(1, 2), scale=0.5),
        "far": dict(channels=16, groups=2, size=(9, 11), reach=20),
        "integer_offsets": dict(channels=16, groups=2, size=(9, 11), whole=True),
        "many_pixels": dict(channels=4, groups=1, size=(70, 61)),
        "bands": dict(channels=66, groups=2, size=(200, 7), reach=2),
        "bands_and_strays": STRAYS,
        "bands_strided": dict(channels=6, groups=3, size=(97, 12), kernel=(3, 2), stride=(2, 1),
                              padding=(0, 2), dilation=(2, 1), reach=9, scale=0.5),
    }  # fmt: skip
    large = dict(batch=3, channels=24, groups=3, size=(41, 37), kernel=(3, 2), stride=(2, 3),
                 reach=1, scale=1.5)  # fmt: skip
    emulated = dict(large, batch=2, size=(9, 11))
    threaded = {"large": large, "strays": STRAYS}
    errors = {
        "input_dim": (dict(input=lambda a: a["input"][0]), "input: expected a 4-dimensional"),
        "input_dtype": (dict(input=lambda a: a["input"].int()), "input: expected dtype float64"),
        "input_no_channels": (dict(input=lambda a: a["input"][..., :0]),
                              "groups: expected a divisor"),
        "input_without_pixels": (
            dict(padding=2, input=lambda a: a["input"][:, :0]),
            "input: expected at least one pixel, got 0x5",
        ),
        "input_too_small": (dict(padding=0, input=lambda a: a["input"][:, :2]),
                            "input: expected a padded size of at least .* kernel size 3, got 2"),
        "kernel_zero": (dict(kernel_size=0), "kernel_size: expected"),
        "kernel_length": (dict(kernel_size=(3, 3, 3)), "kernel_size: expected"),
        "stride_zero": (dict(stride=0), "stride: expected"),
        "padding_negative": (dict(padding=(0, -1)), "padding: expected"),
        "dilation_zero": (dict(dilation=(0, 1)), "dilation: expected"),
        "groups_zero": (dict(groups=0), "groups: expected a positive number, got 0"),
        "groups": (dict(groups=3), "groups: expected a divisor of the 4 input channels, got 3"),
        "scale_nan": (dict(offset_scale=float("nan")), "offset_scale: expected a finite number"),
        "scale_inf": (dict(offset_scale=float("inf")), "offset_scale: expected a finite number"),
        "even_without_center": (
            dict(kernel_size=(3, 2), remove_center=True),
            "remove_center: expected an odd kernel_size",
        ),
        "1x1_without_center": (
            dict(kernel_size=1, remove_center=True),
            "remove_center: expected an odd kernel_size of more than one tap",
        ),
    }  # fmt: skip

    def make_parts(
        self, seed=0, batch=1, channels=4, size=(4, 5), kernel=(3, 3), stride=1, padding=1,
        dilation=1, groups=2, scale=1.0, remove_center=False, reach=3, whole=False,
    ):  # fmt: skip
        """Input, offsets (N, Ho, Wo, G, P, 2), weights (N, Ho, Wo, G, P) and the options."""
        rng = np.random.default_rng(seed)
        window = (kernel, pair(stride), pair(padding), pair(dilation))
        out = [out_size(*values) for values in zip(size, *window, strict=True)]
        taps = torch.tensor(taps_of(kernel, remove_center), dtype=torch.float64)[:, [1, 0]]
        # From where a tap shall sample, relative to the window, to its offset.
        step = torch.tensor([pair(dilation)[1], pair(dilation)[0]], dtype=torch.float64)
        centre = (step * (torch.tensor([kernel[1], kernel[0]]) - 1) / 2).floor()
        shift = fractions(rng, (batch, *out, groups, len(taps), 2), -reach, reach)
        target = taps * step + (shift.round() if whole else shift)
        offset = (target - centre) / scale + centre - taps * step
        input = torch.from_numpy(rng.standard_normal((batch, *size, channels)))
        weight = torch.from_numpy(rng.standard_normal(offset.shape[:-1]))
        options = dict(
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            offset_scale=scale,
            remove_center=remove_center,
        )
        return input, offset, weight, options

    def random_config(self, draw):
        def ints(low, high):
            return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

        kernel, dilation, padding = ints(1, 4), ints(1, 3), ints(0, 3)
        smallest = [
            max(1, d * (k - 1) + 1 - 2 * p)
            for k, d, p in zip(kernel, dilation, padding, strict=True)
        ]
        extra, groups = ints(0, 8), draw(st.integers(1, 5))
        tall = draw(st.sampled_from([0, 0, 0, 60]))  # enough for bands
        odd = kernel[0] % 2 == kernel[1] % 2 == 1 and kernel != (1, 1)
        whole = draw(st.booleans())
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=groups * draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 17, 32])),
            size=(smallest[0] + extra[0] + tall, smallest[1] + extra[1]),
            kernel=kernel,
            stride=ints(1, 3),
            padding=padding,
            dilation=dilation,
            groups=groups,
            # Whole positions stay exact with these scales only.
            scale=draw(st.sampled_from([0.5, 1.0, 2.0] if whole else [0.3, 1.0, 1.7])),
            remove_center=odd and draw(st.booleans()),
            reach=draw(st.sampled_from([1, 3, 20])),
            whole=whole,
        )

    def flops(self, args, output):
        # A sample and output channel: four neighbours and its weight, two operations each.
        # Backward: four dot products with the neighbours, four rows added to their gradients.
        kh, kw = pair(args["kernel_size"])
        samples = output.numel() * (kh * kw - args["remove_center"])
        return 2 * 5 * samples, 2 * 8 * samples
