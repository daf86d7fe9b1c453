"""What every RoI operator must pass beside the tests of all operators."""

import numpy as np
import pytest
import torch
from suites.compare import (
    ERRORS,
    NATIVE_ONLY,
    TOLERANCE,
    assert_close,
    assert_equal,
    cast,
)
from suites.rois import RoiSuite

pytestmark = pytest.mark.suites.with_args(RoiSuite)

BAD_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("index", [-1.0, 3.0, 1e9, 1.5, *BAD_NUMBERS])
def test_batch_index_out_of_range(suite, implementation, index):
    args = suite.make(batch=3, rois=4)
    args["rois"][2, 0] = index
    message = r"rois: expected batch indices in \[0, 3\), got .* in row 2"
    with pytest.raises(ERRORS, match=message):
        implementation(**args)


def test_rois_without_a_batch(suite, implementation):
    args = suite.make(batch=1, rois=4)
    args["input"] = args["input"][:0]
    with pytest.raises(ERRORS, match=r"rois: expected batch indices in \[0, 0\)"):
        implementation(**args)


@pytest.mark.parametrize("batch", [0, 2])
def test_no_rois(suite, implementation, batch):
    args = suite.without_rois(suite.make(batch=2, rois=4))
    args["input"] = args["input"][:batch]
    result = suite.run(implementation, args)
    assert result["output"].shape[0] == 0 and result["output"].shape[1] > 0
    assert result["input"].shape == args["input"].shape and not result["input"].any()


def test_rois_that_are_not_finite_pool_to_zero(suite, implementation):
    args = suite.make(**suite.large)
    expected = suite.run(implementation, args)
    for row, (column, bad) in enumerate((c, b) for c in range(1, 5) for b in BAD_NUMBERS):
        args["rois"][row, column] = bad
    actual = suite.run(implementation, args)
    assert not actual["output"][: row + 1].any()
    assert torch.equal(actual["output"][row + 1 :], expected["output"][row + 1 :])
    for name in suite.differentiable:
        assert actual[name].isfinite().all()
        if name != "input":
            assert not actual[name][: row + 1].any()
            assert torch.equal(actual[name][row + 1 :], expected[name][row + 1 :])


@NATIVE_ONLY
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_extreme_rois(suite, dtype):
    args = cast(suite.make(**suite.large), dtype)
    extreme = [0.0, 5.0, -5.0, 1e3, -1e3, 1e9, -1e9, 1e30, -1e30, 3e38, -3e38]
    corners = np.random.default_rng(0).choice(extreme, (len(args["rois"]), 4))
    args["rois"][:, 1:] = torch.from_numpy(corners).to(dtype)
    actual, expected = suite.run(suite.function, args), suite.run(suite.reference, args)
    assert_close(actual, expected, TOLERANCE[dtype])


def test_rois_outside_the_image_pool_to_zero(suite, implementation):
    args = suite.make(**suite.large)
    for row, (x, y) in enumerate([(-500, 0), (500, 0), (0, -500), (0, 500), (500, -500)]):
        args["rois"][row, 1:] += torch.tensor([x, y, x, y])
    assert not implementation(**args)[: row + 1].any()


@NATIVE_ONLY
def test_memory_format(suite):
    args = suite.make(**suite.large)
    expected = suite.run(suite.function, args)
    args["input"] = args["input"].contiguous(memory_format=torch.channels_last)
    actual = suite.run(suite.function, args)
    assert actual["output"].is_contiguous() and expected["input"].is_contiguous()
    assert actual["input"].is_contiguous(memory_format=torch.channels_last)
    assert_equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_rois_of_any_dtype(suite, implementation, dtype):
    args = cast(suite.make(**suite.large), dtype)
    expected = suite.run(implementation, args)
    for other in (torch.float64, torch.float32, torch.bfloat16):
        actual = suite.run(implementation, {**args, "rois": args["rois"].to(other)})
        assert_equal(actual, expected)  # these coordinates are exact in all of them


@pytest.mark.parametrize("native", [pytest.param(True, marks=NATIVE_ONLY), False])
def test_autocast_leaves_rois_alone(suite, native, monkeypatch):
    monkeypatch.setattr("mmdcn._extension.use_native", lambda device_type: native)
    args = cast(suite.make(**suite.large), torch.float32)
    args["rois"][:, 1:] -= 0.01  # no longer exact in bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        actual = suite.function(**args)
    low = {**cast(args, torch.bfloat16), "rois": args["rois"]}
    assert torch.equal(actual, suite.function(**low))
    assert not torch.equal(actual, suite.function(**cast(args, torch.bfloat16)))


def test_rois_have_no_gradient(suite, implementation):
    args = suite.make(**suite.large)
    args["rois"].requires_grad_()
    args["input"].requires_grad_()
    implementation(**args).sum().backward()
    assert args["rois"].grad is None and args["input"].grad.any()


@pytest.mark.parametrize(
    ("dtype", "images"), [(torch.bfloat16, 257), (torch.float16, 2049)], ids=str
)
def test_batch_indices_that_a_dtype_cannot_hold(suite, implementation, dtype, images):
    args = suite.make(batch=1, rois=2, size=(3, 3))
    args["rois"] = args["rois"].to(dtype)
    args["input"] = args["input"].expand(images, -1, -1, -1)
    args["rois"][1, 0] = images - 1
    implementation(**args)
    args["input"] = args["input"][:1].expand(images + 1, -1, -1, -1)
    message = f"rois: .* holds batch indices up to {images - 1} exactly, and input has {images + 1}"
    with pytest.raises(ERRORS, match=message):
        implementation(**args)


@pytest.mark.parametrize("size", [40_000, (1, 2**31 - 1)])
def test_no_rois_and_many_bins(suite, implementation, size):
    if suite.name == "ps_roi_pool":
        return  # as many bins need as many channels
    args = suite.without_rois(suite.make(batch=2, rois=4))
    args.update({name: None for name in ("offset", "mask") if name in args}, output_size=size)
    if "part_size" in args:
        args["part_size"] = 1
    result = suite.run(implementation, args)
    assert result["output"].numel() == 0 and not result["input"].any()
