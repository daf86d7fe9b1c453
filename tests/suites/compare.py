"""How the tests run an operator and compare results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdcn import _extension

Arguments = dict[str, Any]  # by name: tensors, None and plain options

# Largest difference allowed, relative to the largest magnitude of the expected tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
ERRORS = (RuntimeError, ValueError)
NATIVE_ONLY = pytest.mark.skipif(
    not _extension.is_available("cpu"), reason="the native library was not built"
)


def cast(args: Arguments, dtype: torch.dtype) -> Arguments:
    """All floating-point tensors as ``dtype``."""
    return {
        k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in args.items()
    }


def upstream(output: Tensor) -> Tensor:
    """A fixed gradient of an output."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)


def run(function: Callable, args: Arguments, differentiable, grad: Tensor | None = None):
    """The output and the gradients of the named arguments, for one of the output."""
    leaves = {n: args[n].detach().requires_grad_() for n in differentiable if args[n] is not None}
    output = function(**{**args, **leaves})
    output.backward(upstream(output) if grad is None else grad.to(output.dtype))
    return {"output": output.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; infinite where only one of the two is finite."""
    assert actual.shape == expected.shape
    difference = (actual.double() - expected.double()).abs().nan_to_num(nan=float("inf"))
    return difference.max().item() if difference.numel() else 0.0


def assert_close(actual: dict, expected: dict, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype, name
        scale = expected[name].double().abs().max().item() if value.numel() else 0.0
        assert error(value, expected[name]) <= tolerance * max(scale, 1e-3), name


def assert_equal(actual: dict, expected: dict) -> None:
    """The same bits."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name


@contextlib.contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
