"""Every operator: its numbers."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from suites import checks
from suites.compare import (
    NATIVE_ONLY,
    TOLERANCE,
    assert_close,
    cast,
    error,
)
from torch import Tensor


def test_output_equals_the_oracle(suite, implementation, tiny):
    args = suite.make(**tiny)
    as_arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in args.items()}
    expected = torch.from_numpy(suite.oracle(**as_arrays))
    assert expected.abs().max() > 0
    assert_close({"": implementation(**args)}, {"": expected}, suite.tolerance[torch.float64])


def test_gradients_equal_numerical_ones(suite, implementation, tiny):
    args = suite.make(**tiny)
    names = suite.given(args)
    tensors = [args[n].clone().requires_grad_() for n in names]
    torch.autograd.gradcheck(
        lambda *t: implementation(**{**args, **dict(zip(names, t, strict=True))}),
        tensors,
        fast_mode=implementation == suite.reference,  # on random projections
    )


@NATIVE_ONLY
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_native_equals_the_reference(suite, case, dtype):
    args = cast(suite.make(**case), dtype)
    actual, expected = suite.run(suite.function, args), suite.run(suite.reference, args)
    assert_close(actual, expected, suite.tolerance[dtype])


@NATIVE_ONLY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_as_exact_as_the_reference(suite, case, dtype):
    args = cast(suite.make(**case), dtype)
    truth = suite.run(suite.reference, cast(args, torch.float64))
    actual, low = suite.run(suite.function, args), suite.run(suite.reference, args)
    for name, value in actual.items():
        assert value.dtype == dtype, name
        limit = 2 * error(low[name], truth[name])
        assert error(value, truth[name]) <= limit, name


@NATIVE_ONLY
def test_random_configurations(suite):
    @settings(
        max_examples=200,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def compare(data):
        args = suite.make(**suite.random_config(data.draw))
        actual, expected = suite.run(suite.function, args), suite.run(suite.reference, args)
        assert_close(actual, expected, suite.tolerance[torch.float64])

    compare()


def test_offsets_that_are_not_finite_count_as_far_outside(suite, implementation):
    if suite.has_offsets:
        checks.offsets_that_are_not_finite(suite, implementation)


def test_pixels_that_no_point_touches_do_not_matter(suite, implementation):
    checks.untouched_pixels(suite, implementation)


@NATIVE_ONLY
def test_masks_that_are_not_numbers(suite):
    """The same elements of all results are NaN."""
    args = suite.make(**suite.large)
    masks = suite.masks(args)
    if masks is None:
        return
    masks[torch.from_numpy(np.random.default_rng(4).random(masks.shape) < 0.01)] = float("nan")
    actual, expected = suite.run(suite.function, args), suite.run(suite.reference, args)
    assert expected["output"].isnan().any() and not expected["output"].isnan().all()
    for name, value in actual.items():
        assert torch.equal(value.isnan(), expected[name].isnan()), name
