"""deform_roi_pool and its modules."""

import numpy as np
import pytest
import torch
from suites.compare import (
    NATIVE_ONLY,
    TOLERANCE,
    assert_close,
)
from suites.deform_roi_pool import DeformRoIPool
from suites.rois import make_rois

from mmdcn import ops

pytestmark = pytest.mark.suites.with_args(DeformRoIPool)


@NATIVE_ONLY
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_without_offsets_it_is_aligned_roi_align(suite, sampling_ratio, dtype):
    mmcv_ops = pytest.importorskip("mmcv.ops")
    args = suite.make(**suite.large, offset=False, mask=False, spatial_scale=0.5)
    input, rois = args["input"].to(dtype), args["rois"].to(dtype)
    rois[:, 1:] *= 1.01
    results = []
    for pool in (
        lambda x: mmcv_ops.roi_align(x, rois, (4, 5), 0.5, sampling_ratio, "avg", True),
        lambda x: ops.deform_roi_pool(x, rois, None, None, (4, 5), 0.5, sampling_ratio),
    ):
        leaf = input.clone().requires_grad_()
        output = pool(leaf)
        output.backward(torch.sin(torch.arange(output.numel())).view_as(output).to(dtype))
        results.append({"output": output.detach(), "input": leaf.grad})
    assert_close(*results, TOLERANCE[dtype])


def test_offset_moves_a_bin_by_a_fraction_of_the_roi(suite, implementation):
    # A ramp along x, then along y: pooling reads off where the bins are.
    ramp = torch.arange(40.0, dtype=torch.float64)
    input = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40)])[None]
    rois = torch.tensor([[0, 10.5, 12.5, 20.5, 26.5]])
    offset = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    offset[0, 0, 0, 1], offset[0, 1, 1, 0] = 3, -2  # dx of a top bin, dy of a bottom one
    out = implementation(input, rois, offset, None, 2, sampling_ratio=2, gamma=0.1)
    x = torch.tensor([[12.5, 17.5 + 3 * 0.1 * 10], [12.5, 17.5]], dtype=torch.float64)
    y = torch.tensor([[15.5, 15.5], [22.5 - 2 * 0.1 * 14, 22.5]], dtype=torch.float64)
    assert_close({"": out}, {"": torch.stack([x, y])[None]}, TOLERANCE[torch.float64])


PACKS = ["DeformRoIPoolPack", "ModulatedDeformRoIPoolPack"]


def example(channels=6):
    generator = torch.Generator().manual_seed(0)
    rois = make_rois(np.random.default_rng(0), 5, 2, (12, 14), 0.25, smallest=12).float()
    return torch.randn(2, channels, 12, 14, generator=generator), rois


@pytest.mark.parametrize("name", PACKS)
def test_pack_has_the_parameters_of_mmcv(name):
    mmcv_ops = pytest.importorskip("mmcv.ops")
    ours = getattr(ops, name)(7, 16, deform_fc_channels=32, spatial_scale=0.25)
    theirs = getattr(mmcv_ops, name)(7, 16, deform_fc_channels=32, spatial_scale=0.25)
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("name, factor", [(PACKS[0], 1.0), (PACKS[1], 0.5)])
def test_pack_starts_as_plain_pooling(name, factor):
    input, rois = example()
    pack = getattr(ops, name)((3, 2), 6, deform_fc_channels=8, spatial_scale=0.25)
    expected = factor * ops.deform_roi_pool(input, rois, None, None, (3, 2), 0.25)
    torch.testing.assert_close(pack(input, rois), expected)


@pytest.mark.parametrize("name", PACKS)
def test_pack_predicts_from_the_plain_pooling(name):
    torch.manual_seed(0)
    input, rois = example()
    options = dict(spatial_scale=0.25, sampling_ratio=2, gamma=0.3)
    pack = getattr(ops, name)((3, 2), 6, deform_fc_channels=8, **options)
    for parameter in pack.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    plain = ops.deform_roi_pool(input, rois, output_size=(3, 2), **options)
    offset = pack.offset_fc(plain.reshape(5, -1)).reshape(5, 2, 3, 2)
    mask = pack.mask_fc(plain.reshape(5, -1)).reshape(5, 1, 3, 2) if "Mod" in name else None
    expected = ops.deform_roi_pool(input, rois, offset, mask, (3, 2), **options)
    output = pack(input, rois)
    assert torch.equal(output, expected) and not torch.allclose(output, plain)
    output.square().sum().backward()
    assert all(p.grad.any() for p in pack.parameters())


@pytest.mark.parametrize("name", PACKS)
def test_pack_without_rois_keeps_its_parameters_in_the_graph(name):
    input, rois = example()
    pack = getattr(ops, name)(3, 6, deform_fc_channels=8)
    output = pack(input, rois[:0])
    assert output.shape == (0, 6, 3, 3)
    output.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in pack.parameters())


def test_pack_of_another_number_of_channels():
    input, rois = example()
    with pytest.raises(ValueError, match=r"input: expected 5 channels \(output_channels\)"):
        ops.DeformRoIPoolPack(3, 5)(input, rois)


def test_module_takes_offset_and_mask():
    input, rois = example()
    offset, mask = torch.randn(5, 2, 3, 2), torch.rand(5, 1, 3, 2)
    module = ops.DeformRoIPool((3, 2), 0.25, 2, 0.2)
    expected = ops.deform_roi_pool(input, rois, offset, mask, (3, 2), 0.25, 2, 0.2)
    assert torch.equal(module(input, rois, offset, mask), expected)
    assert "output_size=(3, 2), spatial_scale=0.25, sampling_ratio=2, gamma=0.2" in repr(module)
