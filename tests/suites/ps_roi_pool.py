"""The suite of ps_roi_pool."""

import math
from fractions import Fraction

import numpy as np

from mmdcn import ops

from .oracle import pair
from .rois import EXAMPLE_ROIS, BoxPoolSuite, round_half_away


def oracle(input, rois, output_size, spatial_scale):
    ph, pw = pair(output_size)
    channels, height, width = input.shape[1:]
    out = np.zeros((len(rois), channels // (ph * pw), ph, pw))

    def bounds(start, size, bin, bins, limit):
        begin = math.floor(Fraction(bin * size, bins)) + start
        end = math.ceil(Fraction((bin + 1) * size, bins)) + start
        return range(min(max(begin, 0), limit), min(max(end, 0), limit))

    for r, c, i, j in np.ndindex(*out.shape):
        x1, y1, x2, y2 = (int(round_half_away(v * spatial_scale)) for v in rois[r, 1:])
        rows = bounds(y1, max(y2 - y1, 1), i, ph, height - 1)
        columns = bounds(x1, max(x2 - x1, 1), j, pw, width - 1)
        image = input[int(rois[r, 0]), (c * ph + i) * pw + j]
        total = sum(image[y, x] for y in rows for x in columns)
        out[r, c, i, j] = total / max(len(rows) * len(columns), 1)
    return out


class PSRoIPool(BoxPoolSuite):
    name = "ps_roi_pool"
    oracle = staticmethod(oracle)

    tiny = {
        "square": dict(batch=2, rois=4),
        "asymmetric": dict(rois=4, output_size=(3, 2), spatial_scale=0.25, size=(5, 7)),
        "more_bins_than_pixels": dict(rois=4, output_size=(5, 3), size=(6, 6)),
        "inverted": dict(rois=6, smallest=-6, spatial_scale=1.0),
    }
    cases = {
        "plain": dict(batch=2, channels=21, rois=12, output_size=7, size=(25, 18)),
        "wide": dict(batch=2, channels=40, rois=9, output_size=(5, 3)),
        "one_channel": dict(channels=1, rois=5, output_size=(1, 6)),
        "one_bin": dict(channels=6, rois=5, output_size=1),
        "two_pixels": dict(channels=6, rois=5, size=(2, 2), spatial_scale=0.25),
        "image_without_rois": dict(batch=9, channels=8, rois=2),
        "inverted": dict(batch=2, channels=8, rois=9, smallest=-20),
    }
    # One bin, so that most of the input is read.
    large = dict(batch=2, channels=70, rois=24, size=(19, 22), output_size=1, smallest=12)
    errors = {
        **BoxPoolSuite.errors,
        "input_channels": (
            dict(input=lambda a: a["input"][:, 1:]),
            "input: expected channels that output_size 2x2 divides",
        ),
    }

    def cells(self, output_size):
        return output_size[0] * output_size[1]


SUITES = [PSRoIPool]

MODULES = {"PSRoIPool": (lambda: ops.PSRoIPool(3), [(2, 18, 6, 7), EXAMPLE_ROIS])}
