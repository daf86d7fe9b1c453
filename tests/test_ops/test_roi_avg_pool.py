"""roi_avg_pool and its module."""

import pytest
import torch
from suites.roi_avg_pool import RoIAvgPool

from mmdcn import ops

pytestmark = pytest.mark.suites.with_args(RoIAvgPool)


def test_halves_round_away_from_zero(suite, implementation):
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
