"""deform_ps_roi_pool and its modules."""

import numpy as np
import pytest
import torch
from suites.compare import (
    ERRORS,
    TOLERANCE,
    assert_close,
)
from suites.deform_ps_roi_pool import DeformPSRoIPool
from suites.rois import make_rois

from mmdcn import ops

pytestmark = pytest.mark.suites.with_args(DeformPSRoIPool)


def test_every_cell_has_channels_of_its_own(suite, implementation):
    # Constant channels: the output is their numbers.
    number = torch.arange(2 * 3 * 3.0)
    input = number[:, None, None].expand(1, -1, 9, 9)
    out = implementation(input, torch.tensor([[0, 0, 0, 7.0, 7]]), output_size=(6, 5), group_size=3)
    expected = number.view(2, 3, 3)[:, [0, 0, 1, 1, 2, 2]][:, :, [0, 0, 1, 1, 2]]
    torch.testing.assert_close(out[0], expected)


def test_number_of_output_channels_follows_from_the_input(suite, implementation):
    args = suite.make(**suite.large)
    expected = implementation(**args)
    assert torch.equal(implementation(**{**args, "output_channels": None}), expected)
    with pytest.raises(ERRORS, match="input: expected .* channels that group_size 3x3 divides"):
        implementation(**{**args, "output_channels": None, "group_size": 3})


def test_offset_moves_a_bin_by_a_fraction_of_the_roi(suite, implementation):
    # A ramp along x, then along y: pooling reads off where the bins are. Samples stand at 0
    # and 1/2 of a bin.
    ramp = torch.arange(40.0, dtype=torch.float64)
    input = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40)])[None]
    rois = torch.tensor([[0, 10.5, 12.4, 19.6, 25.4]])  # 11 to 20, 12 to 25
    offset = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    offset[0, 0, 0, 1], offset[0, 1, 1, 0] = 3, -2  # dx of a top bin, dy of a bottom one
    out = implementation(
        input, rois, offset, output_size=2, group_size=1, sample_per_part=2, trans_std=0.1
    )
    left, top, right, bottom = 10.5 + 1.25, 11.5 + 1.75, 15.5 + 1.25, 18.5 + 1.75
    x = [[left, right + 3 * 0.1 * 10], [left, right]]
    y = [[top, top], [bottom - 2 * 0.1 * 14, bottom]]
    expected = torch.tensor([[x, y]], dtype=torch.float64)
    assert_close({"": out}, {"": expected}, TOLERANCE[torch.float64])


PACKS = ["DeformPSRoIPoolPack", "ModulatedDeformPSRoIPoolPack"]
OPTIONS = dict(group_size=2, part_size=3, sample_per_part=2, spatial_scale=0.25, trans_std=0.3)


def example():
    generator = torch.Generator().manual_seed(0)
    rois = make_rois(np.random.default_rng(0), 5, 2, (12, 14), 0.25, smallest=12).float()
    return torch.randn(2, 6 * 4, 12, 14, generator=generator), rois


@pytest.mark.parametrize("name, factor", [(PACKS[0], 1.0), (PACKS[1], 0.5)])
def test_pack_starts_as_plain_pooling(name, factor):
    input, rois = example()
    pack = getattr(ops, name)(4, 6, **OPTIONS, num_classes=2)
    plain = ops.DeformPSRoIPool(4, 6, **OPTIONS)
    torch.testing.assert_close(pack(input, rois), factor * plain(input, rois))


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("feature_channels", [None, 10])
def test_pack_pools_offset_maps(name, feature_channels):
    torch.manual_seed(0)
    input, rois = example()
    pack = getattr(ops, name)(4, 6, **OPTIONS, num_classes=3, feature_channels=feature_channels)
    for parameter in pack.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    features = torch.randn(2, feature_channels, 12, 14) if feature_channels else input
    shared = {k: OPTIONS[k] for k in ("group_size", "sample_per_part", "spatial_scale")}

    def pooled(conv, channels):
        assert conv.kernel_size == (1, 1) and conv.out_channels == channels * 4
        return ops.deform_ps_roi_pool(conv(features), rois, output_size=3, **shared)

    offset = pooled(pack.conv_offset, 6)
    mask = pooled(pack.conv_mask, 3).sigmoid() if "Mod" in name else None
    expected = ops.DeformPSRoIPool(4, 6, **OPTIONS)(input, rois, offset, mask)
    output = pack(input, rois, features if feature_channels else None)
    assert torch.equal(output, expected)
    output.square().sum().backward()
    assert all(p.grad.any() for p in pack.parameters())


@pytest.mark.parametrize("name", PACKS)
def test_pack_without_rois_keeps_its_parameters_in_the_graph(name):
    input, rois = example()
    pack = getattr(ops, name)(4, 6, **OPTIONS)
    output = pack(input, rois[:0])
    assert output.shape == (0, 6, 4, 4)
    output.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in pack.parameters())


def test_module_takes_offset_and_mask():
    input, rois = example()
    offset, mask = torch.randn(5, 4, 3, 3), torch.rand(5, 2, 3, 3)
    module = ops.DeformPSRoIPool(4, 6, **OPTIONS)
    expected = ops.deform_ps_roi_pool(input, rois, offset, mask, 4, 6, *OPTIONS.values())
    assert torch.equal(module(input, rois, offset, mask), expected)
    assert "output_size=(4, 4), output_channels=6, group_size=2, part_size=(3, 3)" in repr(module)
