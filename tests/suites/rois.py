"""What every RoI operator must pass beside the tests of OperatorSuite, and parts of oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from operator_suite import (
    ERRORS,
    TOLERANCE,
    OperatorSuite,
    assert_close,
    assert_equal,
    cast,
    native_only,
)
from oracle import pair

BAD_NUMBERS = [float("nan"), float("inf"), -float("inf")]


def clamped_bilinear(image, y, x):
    """Sample a 2-D array at (y, x) after moving the point onto the nearest one inside."""
    height, width = image.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for row in range(height):
        for col in range(width):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - col))
            total += weight * image[row, col]
    return total


def round_half_away(value):
    return math.copysign(math.floor(abs(value) + 0.5), value)


def make_rois(rng, count, batch, size, scale, smallest=4):
    """RoIs that overlap maps of ``size`` pixels, ``scale`` of them per pixel of the image.

    Coordinates are multiples of 1/4 below 64, which bfloat16 holds exactly.
    """
    height, width = (s / scale for s in size)
    assert max(height, width) <= 60
    rois = np.zeros((count, 5))
    rois[:, 0] = rng.integers(0, max(batch, 1), count)
    for first, length in ((1, width), (2, height)):
        ends = rng.uniform(-2, length + 2, (count, 2))
        ends.sort(axis=1)
        ends[:, 1] = np.maximum(ends[:, 1], ends[:, 0] + smallest)
        rois[:, first], rois[:, first + 2] = ends.T
    return torch.from_numpy(np.round(rois * 4) / 4)


class RoiSuite(OperatorSuite):
    """``make`` takes ``rois`` (how many) and ``batch``."""

    errors = {
        "input_dim": (dict(input=lambda a: a["input"][0]), "input: expected a 4-dimensional"),
        "input_dtype": (dict(input=lambda a: a["input"].int()), "input: expected dtype float64"),
        "input_no_channels": (dict(input=lambda a: a["input"][:, :0]), "input: expected"),
        "input_no_pixels": (
            dict(input=lambda a: a["input"][..., :0]), "input: expected at least one"
        ),
        "rois_dim": (dict(rois=lambda a: a["rois"][0]), "rois: expected a 2-dimensional"),
        "rois_columns": (dict(rois=lambda a: a["rois"][:, 1:]), "rois: expected shape"),
        "rois_dtype": (dict(rois=lambda a: a["rois"].long()), "rois: expected dtype float64"),
        "output_size_zero": (dict(output_size=(0, 2)), "output_size: expected"),
        "output_size_length": (dict(output_size=(1, 2, 3)), "output_size: expected"),
        "spatial_scale_zero": (dict(spatial_scale=0.0), "spatial_scale: expected a positive"),
        "spatial_scale_nan": (
            dict(spatial_scale=float("nan")), "spatial_scale: expected a positive"
        ),
    }  # fmt: skip

    def without_rois(self, args):
        """The same call with no RoIs."""
        count = args["rois"].shape[0]
        return {
            k: v[:0] if k != "input" and isinstance(v, torch.Tensor) and len(v) == count else v
            for k, v in args.items()
        }

    @pytest.mark.parametrize("index", [-1.0, 3.0, 1e9, *BAD_NUMBERS])
    def test_batch_index_out_of_range(self, implementation, index):
        args = self.make(batch=3, rois=4)
        args["rois"][2, 0] = index
        message = r"rois: expected batch indices in \[0, 3\), got .* in row 2"
        with pytest.raises(ERRORS, match=message):
            implementation(**args)

    def test_rois_without_a_batch(self, implementation):
        args = self.make(batch=1, rois=4)
        args["input"] = args["input"][:0]
        with pytest.raises(ERRORS, match=r"rois: expected batch indices in \[0, 0\)"):
            implementation(**args)

    @pytest.mark.parametrize("batch", [0, 2])
    def test_no_rois(self, implementation, batch):
        args = self.without_rois(self.make(batch=2, rois=4))
        args["input"] = args["input"][:batch]
        result = self.run(implementation, args)
        assert result["output"].shape[0] == 0 and result["output"].shape[1] > 0
        assert result["input"].shape == args["input"].shape and not result["input"].any()

    def test_rois_that_are_not_finite_pool_to_zero(self, implementation):
        args = self.make(**self.large)
        expected = self.run(implementation, args)
        for row, (column, bad) in enumerate((c, b) for c in range(1, 5) for b in BAD_NUMBERS):
            args["rois"][row, column] = bad
        actual = self.run(implementation, args)
        assert not actual["output"][: row + 1].any()
        assert torch.equal(actual["output"][row + 1 :], expected["output"][row + 1 :])
        for name in self.differentiable:
            assert actual[name].isfinite().all()
            if name != "input":
                assert not actual[name][: row + 1].any()
                assert torch.equal(actual[name][row + 1 :], expected[name][row + 1 :])

    @native_only
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_extreme_rois(self, dtype):
        args = cast(self.make(**self.large), dtype)
        extreme = [0.0, 5.0, -5.0, 1e3, -1e3, 1e9, -1e9, 1e30, -1e30, 3e38, -3e38]
        corners = np.random.default_rng(0).choice(extreme, (len(args["rois"]), 4))
        args["rois"][:, 1:] = torch.from_numpy(corners).to(dtype)
        actual, expected = self.run(self.function, args), self.run(self.reference, args)
        assert_close(actual, expected, TOLERANCE[dtype])

    def test_rois_outside_the_image_pool_to_zero(self, implementation):
        args = self.make(**self.large)
        for row, (x, y) in enumerate([(-500, 0), (500, 0), (0, -500), (0, 500), (500, -500)]):
            args["rois"][row, 1:] += torch.tensor([x, y, x, y])
        assert not implementation(**args)[: row + 1].any()

    @native_only
    def test_memory_format(self):
        args = self.make(**self.large)
        expected = self.run(self.function, args)
        args["input"] = args["input"].contiguous(memory_format=torch.channels_last)
        actual = self.run(self.function, args)
        assert actual["output"].is_contiguous() and expected["input"].is_contiguous()
        assert actual["input"].is_contiguous(memory_format=torch.channels_last)
        assert_equal(actual, expected)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_rois_of_any_dtype(self, implementation, dtype):
        args = cast(self.make(**self.large), dtype)
        expected = self.run(implementation, args)
        for other in (torch.float64, torch.float32, torch.bfloat16):
            actual = self.run(implementation, {**args, "rois": args["rois"].to(other)})
            assert_equal(actual, expected)  # these coordinates are exact in all of them

    @pytest.mark.parametrize("native", [pytest.param(True, marks=native_only), False])
    def test_autocast_leaves_rois_alone(self, native, monkeypatch):
        monkeypatch.setattr("mmdcn._extension.use_native", lambda device_type: native)
        args = cast(self.make(**self.large), torch.float32)
        args["rois"][:, 1:] -= 0.01  # no longer exact in bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            actual = self.function(**args)
        low = {**cast(args, torch.bfloat16), "rois": args["rois"]}
        assert torch.equal(actual, self.function(**low))
        assert not torch.equal(actual, self.function(**cast(args, torch.bfloat16)))

    def test_rois_have_no_gradient(self, implementation):
        args = self.make(**self.large)
        args["rois"].requires_grad_()
        args["input"].requires_grad_()
        implementation(**args).sum().backward()
        assert args["rois"].grad is None and args["input"].grad.any()


class BoxPoolSuite(RoiSuite):
    """Poolings over boxes of whole pixels: their only tensors are ``input`` and ``rois``."""

    differentiable = ("input",)

    def make(
        self, seed=0, batch=1, channels=2, rois=3, size=(9, 7), output_size=2, spatial_scale=0.5,
        smallest=4,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        channels *= self.cells(pair(output_size))
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, channels, *size))),
            rois=make_rois(rng, rois if batch else 0, batch, size, spatial_scale, smallest),
            output_size=output_size,
            spatial_scale=spatial_scale,
        )

    def cells(self, output_size) -> int:
        """Input channels per output channel."""
        raise NotImplementedError

    def random_config(self, draw):
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=draw(st.sampled_from([1, 2, 5, 33])),
            rois=draw(st.integers(0, 6)),
            size=draw(st.tuples(st.integers(1, 14), st.integers(1, 14))),
            output_size=draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
            spatial_scale=draw(st.sampled_from([0.25, 0.5, 1.0])),
            smallest=draw(st.sampled_from([4, 0, -10])),
        )

    def flops(self, args, output):
        return output.numel(), output.numel()  # an addition for each, at least

    test_offsets_that_are_not_finite_count_as_far_outside = None  # there are none
