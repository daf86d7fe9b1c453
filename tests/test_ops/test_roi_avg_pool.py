"""roi_avg_pool and its module."""

import math
from fractions import Fraction

import numpy as np
import torch
from oracle import pair
from roi_suite import BoxPoolSuite, round_half_away

from mmdcn import ops
from mmdcn.ops import reference


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


class TestRoIAvgPool(BoxPoolSuite):
    name = "roi_avg_pool"
    function = staticmethod(ops.roi_avg_pool)
    reference = staticmethod(reference.roi_avg_pool)
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

    def test_halves_round_away_from_zero(self, implementation):
        # Columns -1 and 0 for x in [-0.5, 0.49], and 1 to 3 for x in [0.5, 2.5].
        input = torch.tensor([1.0, 10, 100, 1000, 10000]).expand(1, 1, 2, 5)
        rois = torch.tensor([[0, -0.5, 0, 0.49, 1], [0, 0.5, 0, 2.5, 1]])
        out = implementation(input, rois, 1)
        torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 1110 / 3]))


def test_module():
    input, rois = torch.randn(1, 3, 8, 8), torch.tensor([[0, 1.0, 2, 13, 11]])
    module = ops.RoIAvgPool((3, 2), 0.5)
    assert torch.equal(module(input, rois), ops.roi_avg_pool(input, rois, (3, 2), 0.5))
    assert repr(module) == "RoIAvgPool(output_size=(3, 2), spatial_scale=0.5)"
