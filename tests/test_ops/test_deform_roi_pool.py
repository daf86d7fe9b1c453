"""deform_roi_pool and its modules."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from operator_suite import TOLERANCE, assert_close, native_only
from oracle import pair
from roi_suite import RoiSuite, clamped_bilinear, make_rois

from mmdcn import ops
from mmdcn.ops import reference


def oracle(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma):
    ph, pw = pair(output_size)
    channels, height, width = input.shape[1:]
    out = np.zeros((len(rois), channels, ph, pw))
    for r, c, i, j in np.ndindex(*out.shape):
        image = input[int(rois[r, 0]), c]
        x1, y1, x2, y2 = rois[r, 1:] * spatial_scale - 0.5
        roi_h, roi_w = y2 - y1, x2 - x1
        rows = sampling_ratio or max(math.ceil(roi_h / ph), 0)
        columns = sampling_ratio or max(math.ceil(roi_w / pw), 0)
        top, left = y1 + i * roi_h / ph, x1 + j * roi_w / pw
        if offset is not None:
            left += gamma * roi_w * offset[r, 0, i, j]
            top += gamma * roi_h * offset[r, 1, i, j]
        total = 0.0
        for p, q in np.ndindex(rows, columns):
            y = top + (p + 0.5) * roi_h / ph / rows
            x = left + (q + 0.5) * roi_w / pw / columns
            if -1 <= y <= height and -1 <= x <= width:
                total += clamped_bilinear(image, y, x)
        out[r, c, i, j] = total / max(rows * columns, 1)
        if mask is not None:
            out[r, c, i, j] *= mask[r, 0, i, j]
    return out


class TestDeformRoIPool(RoiSuite):
    name = "deform_roi_pool"
    function = staticmethod(ops.deform_roi_pool)
    reference = staticmethod(reference.deform_roi_pool)
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset", "mask")

    tiny = {
        "modulated": dict(batch=2, rois=3, channels=2),
        "offset_only": dict(mask=False, channels=3, output_size=(3, 2), gamma=0.4),
        "mask_only": dict(offset=False, output_size=2, sampling_ratio=1),
        "adaptive_grid": dict(sampling_ratio=0, output_size=(1, 2), size=(5, 7)),
        "plain": dict(batch=2, rois=4, offset=False, mask=False, sampling_ratio=3),
        "small_and_inverted": dict(rois=4, smallest=-3, spatial_scale=1.0, size=(6, 8)),
    }
    cases = {
        "plain": dict(batch=2, channels=64, rois=12, output_size=7, offset=False, mask=False),
        "plain_adaptive": dict(batch=2, channels=5, rois=12, output_size=3, sampling_ratio=0,
                               offset=False, mask=False),
        "modulated": dict(batch=2, channels=40, rois=12, output_size=7),
        "odd_channels": dict(batch=3, channels=35, rois=9, output_size=(5, 3)),
        "one_channel": dict(channels=1, rois=5, output_size=(1, 6)),
        "one_pixel": dict(channels=6, rois=5, size=(1, 1), spatial_scale=0.25),
        "one_row": dict(channels=6, rois=5, size=(1, 15)),
        "adaptive": dict(batch=2, channels=9, rois=9, sampling_ratio=0, size=(25, 18)),
        "many_samples": dict(channels=4, rois=5, sampling_ratio=9, output_size=2),
        "image_without_rois": dict(batch=9, channels=8, rois=2),
        "inverted": dict(batch=2, channels=8, rois=9, smallest=-20),
    }  # fmt: skip
    large = dict(batch=3, channels=70, rois=30, size=(19, 22), output_size=(4, 5), smallest=12)
    errors = {
        **RoiSuite.errors,
        "sampling_ratio": (dict(sampling_ratio=-1), "sampling_ratio: expected an integer in"),
        "sampling_ratio_huge": (dict(sampling_ratio=2**40), "sampling_ratio: expected an integer"),
        "gamma": (dict(gamma=float("inf")), "gamma: expected a finite number"),
        "offset_rois": (dict(offset=lambda a: a["offset"][1:]), "offset: expected shape"),
        "offset_channels": (dict(offset=lambda a: a["offset"][:, :1]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][..., 1:]), "offset: expected shape"),
        "offset_dtype": (dict(offset=lambda a: a["offset"].float()),
                         "offset: expected the dtype of input"),
        "mask_shape": (dict(mask=lambda a: a["mask"][:, 0]), "mask: expected shape"),
        "mask_size": (dict(mask=lambda a: a["mask"][:, :, 1:]), "mask: expected shape"),
        "mask_dtype": (dict(mask=lambda a: a["mask"].half()), "mask: expected the dtype of input"),
    }  # fmt: skip

    def make(
        self, seed=0, batch=1, channels=4, rois=3, size=(9, 7), output_size=2, spatial_scale=0.5,
        sampling_ratio=2, gamma=0.1, offset=True, mask=True, smallest=4,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        bins = pair(output_size)
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, channels, *size))),
            rois=make_rois(rng, rois if batch else 0, batch, size, spatial_scale, smallest),
            offset=torch.from_numpy(rng.standard_normal((rois if batch else 0, 2, *bins)))
            if offset
            else None,
            mask=torch.from_numpy(rng.random((rois if batch else 0, 1, *bins))) if mask else None,
            output_size=output_size,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            gamma=gamma,
        )

    def random_config(self, draw):
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=draw(st.integers(1, 70)),
            rois=draw(st.integers(0, 6)),
            size=draw(st.tuples(st.integers(1, 14), st.integers(1, 14))),
            output_size=draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
            spatial_scale=draw(st.sampled_from([0.25, 0.5, 1.0])),
            sampling_ratio=draw(st.integers(0, 4)),
            gamma=draw(st.sampled_from([0.1, 0.5])),
            offset=draw(st.booleans()),
            mask=draw(st.booleans()),
            smallest=draw(st.sampled_from([4, 0, -10])),
        )

    def offsets(self, args):
        return args["offset"].movedim(1, -1)

    def flops(self, args, output):
        # Two operations for each of the four neighbours of a sample. Backward: the input's
        # gradient, and for offsets and mask the value and its two derivatives.
        forward = 2 * 4 * output.numel() * args["sampling_ratio"] ** 2
        return forward, 4 * forward

    @native_only
    @pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_without_offsets_it_is_aligned_roi_align(self, sampling_ratio, dtype):
        mmcv_ops = pytest.importorskip("mmcv.ops")
        args = self.make(**self.large, offset=False, mask=False, spatial_scale=0.5)
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

    def test_offset_moves_a_bin_by_a_fraction_of_the_roi(self, implementation):
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
