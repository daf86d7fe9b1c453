"""dcnv3 and dcnv4."""

import pytest
import torch
from suites.aggregation import AggregationSuite
from suites.compare import (
    NATIVE_ONLY,
    TOLERANCE,
    assert_close,
    assert_equal,
    cast,
)
from suites.dcnv3 import DCNv3
from suites.dcnv4 import DCNv4

from mmdcn import ops


@pytest.mark.suites.with_args(AggregationSuite)
@NATIVE_ONLY
@pytest.mark.slow
def test_large_map_with_stride_2(suite):
    args = cast(suite.make(size=(248, 456), channels=128, groups=8, stride=2), torch.float32)
    actual, expected = suite.run(suite.function, args), suite.run(suite.reference, args)
    assert_close(actual, expected, TOLERANCE[torch.float32])


@pytest.mark.suites.with_args(AggregationSuite)
@NATIVE_ONLY
def test_zero_scale_ignores_the_offsets(suite):
    args = {**suite.make(**suite.large), "offset_scale": 0.0}
    offsets = suite.offsets(args)
    expected = suite.function(**args)
    assert not suite.offsets({**args, **suite.run(suite.function, args)}).any()
    offsets.add_(1)
    assert torch.equal(suite.function(**args), expected)


@pytest.mark.suites.with_args(DCNv3)
def test_softmax_option_is_a_softmax_beforehand(suite, implementation):
    args = suite.make(**suite.large, softmax=True)
    args["mask"] *= 50  # large logits must not overflow
    before = args["mask"].unflatten(-1, (args["groups"], -1)).softmax(-1).flatten(-2)
    expected = implementation(**{**args, "mask": before, "mask_softmax": False})
    assert_close({"": implementation(**args)}, {"": expected}, TOLERANCE[torch.float64])


@pytest.mark.suites.with_args(DCNv4)
def test_surplus_channels_do_not_matter(suite, implementation):
    args = suite.make(**suite.large, surplus=3)
    expected = suite.run(implementation, args)
    assert not expected["offset_mask"][..., -3:].any()
    args["offset_mask"][..., -3:] = float("nan")
    assert_equal(suite.run(implementation, args), expected)


@pytest.mark.suites.with_args(DCNv4)
@NATIVE_ONLY
def test_equals_dcnv3_without_softmax(suite):
    dcnv3 = DCNv3().make(**suite.large)
    assert torch.equal(suite.function(**suite.make(**suite.large)), ops.dcnv3(**dcnv3))
