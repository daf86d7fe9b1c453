"""The suite of dcnv3."""

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from .aggregation import AggregationSuite, taps_of
from .oracle import bilinear, out_size, pair


def oracle(
    input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale,
    remove_center, mask_softmax=False,
):  # fmt: skip
    (kh, kw), (sh, sw) = pair(kernel_size), pair(stride)
    (ph, pw), (dh, dw) = pair(padding), pair(dilation)
    taps = taps_of((kh, kw), remove_center)
    batch, height, width, channels = input.shape
    out = np.zeros(
        (batch, out_size(height, kh, sh, ph, dh), out_size(width, kw, sw, pw, dw), channels)
    )
    centre_y, centre_x = dh * (kh - 1) // 2, dw * (kw - 1) // 2
    for n, y, x, c in np.ndindex(*out.shape):
        first = c // (channels // groups) * len(taps)
        weights = mask[n, y, x, first : first + len(taps)]
        if mask_softmax:
            weights = np.exp(weights) / np.exp(weights).sum()
        for k, (j, i) in enumerate(taps):
            dx, dy = offset[n, y, x, 2 * (first + k) : 2 * (first + k) + 2]
            at_y = y * sh - ph + centre_y + (j * dh - centre_y + dy) * offset_scale
            at_x = x * sw - pw + centre_x + (i * dw - centre_x + dx) * offset_scale
            out[n, y, x, c] += weights[k] * bilinear(input[n, :, :, c], at_y, at_x)
    return out


class DCNv3(AggregationSuite):
    name = "dcnv3"
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset", "mask")
    tiny = {**AggregationSuite.tiny, "softmax": dict(softmax=True)}
    cases = {
        **AggregationSuite.cases,
        "softmax": dict(channels=32, groups=4, size=(9, 8), softmax=True),
        "softmax_asymmetric": dict(AggregationSuite.cases["asymmetric"], softmax=True),
    }
    errors = {
        **AggregationSuite.errors,
        "offset_dim": (dict(offset=lambda a: a["offset"][0]), "offset: expected shape"),
        "offset_batch": (dict(offset=lambda a: torch.cat([a["offset"]] * 2)),
                         "offset: expected shape"),
        "offset_channels": (dict(offset=lambda a: a["offset"][..., 2:]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][:, 1:]), "offset: expected shape"),
        "offset_dtype": (dict(offset=lambda a: a["offset"].float()),
                         "offset: expected the dtype of input"),
        "mask_dim": (dict(mask=lambda a: a["mask"][0]), "mask: expected shape"),
        "mask_channels": (dict(mask=lambda a: a["mask"][..., 1:]), "mask: expected shape"),
        "mask_dtype": (dict(mask=lambda a: a["mask"].half()), "mask: expected the dtype of input"),
        "groups_of_offset": (dict(groups=4), "offset: expected shape"),
    }  # fmt: skip

    def make(self, softmax=False, **config):
        input, offset, weight, options = self.make_parts(**config)
        args = dict(input=input, offset=offset.flatten(3), mask=weight.flatten(3), **options)
        return {**args, "mask_softmax": softmax}

    def random_config(self, draw):
        return {**super().random_config(draw), "softmax": draw(st.booleans())}

    def offsets(self, args):
        return args["offset"].unflatten(-1, (-1, 2))


SUITES = [DCNv3]

MAP, IMAGE = (2, 6, 7, 16), (2, 16, 6, 7)
MODULES = {
    "DCNv3": (lambda: ops.DCNv3(16, center_feature_scale=True), [MAP]),
    "DCNv3Conv2d": (lambda: ops.DCNv3Conv2d(16, 8, 3, padding=1), [IMAGE]),
}
