"""The suite of roi_avg_pool."""

import math
from fractions import Fraction

import numpy as np

from mmdcn import ops

from .oracle import pair
from .rois import EXAMPLE_ROIS, BoxPoolSuite, round_half_away


def oracle(input, rois, output_size, spatial_scale):
    ph, pw = pair(output_size)
    channels, height, width = input.shape[1:]
    out = np.zeros((len(rois), channels, ph, pw))
    for r, c, i, j in np.ndindex(*out.shape):
        x1, y1, x2, y2 = (int(round_half_away(v * spatial_scale)) for v in rois[r, 1:])
        roi_h, roi_w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        pixels = [
            input[int(rois[r, 0]), c, y, x]
            for y in range(
                y1 + math.floor(Fraction(i * roi_h, ph)),
                y1 + math.ceil(Fraction((i + 1) * roi_h, ph)),
            )
            for x in range(
                x1 + math.floor(Fraction(j * roi_w, pw)),
                x1 + math.ceil(Fraction((j + 1) * roi_w, pw)),
            )
            if 0 <= y < height and 0 <= x < width
        ]
        out[r, c, i, j] = sum(pixels) / len(pixels) if pixels else 0
    return out


class RoIAvgPool(BoxPoolSuite):
    name = "roi_avg_pool"
    oracle = staticmethod(oracle)

    tiny = {
        "square": dict(batch=2, rois=4),
        "asymmetric": dict(rois=4, output_size=(3, 2), spatial_scale=0.25, size=(5, 7)),
        "more_bins_than_pixels": dict(rois=4, output_size=(5, 7), size=(6, 6)),
        "inverted": dict(rois=6, smallest=-6, spatial_scale=1.0),
    }
    cases = {
        "plain": dict(batch=2, channels=64, rois=12, output_size=7, size=(25, 18)),
        "odd_channels": dict(batch=3, channels=35, rois=9, output_size=(5, 3)),
        "one_channel": dict(channels=1, rois=5, output_size=(1, 6)),
        "one_pixel": dict(channels=6, rois=5, size=(1, 1), spatial_scale=0.25),
        "image_without_rois": dict(batch=9, channels=8, rois=2),
        "inverted": dict(batch=2, channels=8, rois=9, smallest=-20),
    }
    large = dict(batch=3, channels=70, rois=24, size=(19, 22), output_size=(4, 5), smallest=12)

    def cells(self, output_size):
        return 1


SUITES = [RoIAvgPool]

MODULES = {"RoIAvgPool": (lambda: ops.RoIAvgPool(3), [(2, 16, 6, 7), EXAMPLE_ROIS])}
