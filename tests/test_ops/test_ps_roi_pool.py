"""ps_roi_pool and its module."""

import pytest
import torch
from suites.ps_roi_pool import PSRoIPool

from mmdcn import ops

pytestmark = pytest.mark.suites.with_args(PSRoIPool)


def test_every_bin_has_channels_of_its_own(suite, implementation):
    # Constant channels: the output is their numbers.
    number = torch.arange(2 * 3 * 4.0)
    input = number[:, None, None].expand(1, -1, 9, 9)
    out = implementation(input, torch.tensor([[0, 0, 0, 7.0, 7]]), (3, 4))
    assert torch.equal(out[0], number.view(2, 3, 4))


def test_module():
    input, rois = torch.randn(1, 18, 8, 8), torch.tensor([[0, 1.0, 2, 13, 11]])
    module = ops.PSRoIPool((3, 2), 0.5)
    assert torch.equal(module(input, rois), ops.ps_roi_pool(input, rois, (3, 2), 0.5))
    assert repr(module) == "PSRoIPool(output_size=(3, 2), spatial_scale=0.5)"
