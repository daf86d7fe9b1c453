"""Checks that tests on several devices make."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .compare import assert_equal, run
from .suite import Suite


def offsets_that_are_not_finite(suite: Suite, implementation: Callable) -> None:
    """They count as far outside: the sample is 0, and has no gradient."""
    generator = np.random.default_rng(3)
    for bad in (float("nan"), float("inf"), -float("inf"), 1e30, -1e3):
        args, far = suite.make(**suite.large), suite.make(**suite.large)
        offsets, far_offsets = suite.offsets(args), suite.offsets(far)
        chosen = torch.from_numpy(generator.random(offsets.shape) < 0.1)
        offsets[chosen], far_offsets[chosen] = bad, 1e3
        actual, expected = suite.run(implementation, args), suite.run(implementation, far)
        assert all(value.isfinite().all() for value in actual.values())
        assert_equal(actual, expected)
        # Neither coordinate of such a point has a gradient.
        gradient = suite.offsets({**args, **actual})
        assert not gradient[chosen.any(-1)].any()
        assert gradient[~chosen.any(-1)].any()


def untouched_pixels(suite: Suite, implementation: Callable) -> None:
    """Pixels that no point touches do not matter."""
    args = suite.make(**suite.large)
    expected = suite.run(implementation, args)
    untouched = expected["input"] == 0
    assert 0 < untouched.sum() < untouched.numel() / 2
    for bad in (float("nan"), float("inf")):
        args["input"] = args["input"].masked_fill(untouched, bad)
        assert_equal(suite.run(implementation, args), expected)


def inputs_of_any_strides(suite: Suite, layout: str) -> None:
    """Results do not depend on the strides of the inputs, ``"strided"`` or ``"permuted"``."""

    def change(t: Tensor) -> Tensor:
        if layout == "strided":
            return torch.stack([t, torch.full_like(t, float("nan"))], -1)[..., 0]
        return t.movedim(-1, 0).contiguous().movedim(0, -1)

    args = suite.make(**suite.large)
    changed = {k: change(v) if isinstance(v, Tensor) else v for k, v in args.items()}
    expected = suite.run(suite.function, args)
    assert not changed["input"].is_contiguous()
    grad = change(torch.randn_like(expected["output"]))
    expected = suite.run(suite.function, args, grad.contiguous())
    assert_equal(suite.run(suite.function, changed, grad), expected)


def gradients_of_some_arguments(suite: Suite) -> None:
    """Gradients are the same bits when fewer of them are wanted."""
    args = suite.make(**suite.large)
    names = suite.given(args)
    expected = suite.run(suite.function, args)
    for count in (1, 2):
        for chosen in itertools.combinations(names, count):
            actual = run(suite.function, args, chosen)
            assert_equal(actual, {k: expected[k] for k in ("output", *chosen)})
