"""What the tests know of an operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mmdcn import ops

from .compare import TOLERANCE, Arguments, run


def fractions(generator: np.random.Generator, shape, low: int, high: int) -> Tensor:
    """Offsets in [low, high) with fractions in [0.2, 0.8].

    The derivative of bilinear sampling jumps at integer positions; with these offsets a
    numerical derivative never crosses one.
    """
    whole = generator.integers(low, high, shape)
    return torch.from_numpy(whole + generator.uniform(0.2, 0.8, shape))


class Suite:
    """Cases, oracle and expectations of a function of :mod:`mmdcn.ops`; a subclass fills them in.

    All tests of operators, on whatever device, read these.
    """

    name: str  # of the function
    differentiable: tuple[str, ...]
    tiny: dict[str, dict]  # configurations small enough for the oracle and gradcheck
    cases: dict[str, dict]  # configurations compared with the reference
    large: dict  # several tiles of work, and pixels of the input that no point touches
    emulated: dict  # the same for the emulated GPU, which is slow
    errors: dict[str, tuple[dict, str]]  # replaced arguments (or functions of them), message
    tolerance: dict[torch.dtype, float] = TOLERANCE

    def __init__(self) -> None:
        self.function: Callable = getattr(ops, self.name)
        self.reference: Callable = getattr(ops.reference, self.name)

    @property
    def operator(self) -> str:
        """Name of the native operator."""
        return self.name

    @property
    def threaded(self) -> dict[str, dict]:
        """Configurations that are cut among threads."""
        return {"large": self.large}

    def oracle(self, **args) -> np.ndarray:
        """The output by nested loops over NumPy arrays."""
        raise NotImplementedError

    def make(self, seed: int = 0, **config) -> Arguments:
        """Arguments of one call, float64, with sampling points away from integer positions."""
        raise NotImplementedError

    def random_config(self, draw: Callable) -> dict:
        """A configuration for :meth:`make` drawn from hypothesis strategies."""
        raise NotImplementedError

    def offsets(self, args: Arguments) -> Tensor | None:
        """View of the offsets with the coordinate pair in the last dimension, if there are any."""
        raise NotImplementedError

    def masks(self, args: Arguments) -> Tensor | None:
        """View of the factors of the samples, if there are any."""
        return args.get("mask")

    def flops(self, args: Arguments, output: Tensor) -> tuple[int, int]:
        """FLOPs of the forward, and of the backward with all gradients."""
        raise NotImplementedError

    @property
    def has_offsets(self) -> bool:
        return self.offsets(self.make()) is not None

    def for_emulation(self) -> Suite:
        """The same with another ``large``."""
        suite = type(self)()
        suite.large = self.emulated
        return suite

    def smallest(self) -> Arguments:
        """Arguments of the first of the tiny configurations."""
        return self.make(**next(iter(self.tiny.values())))

    def given(self, args: Arguments) -> list[str]:
        """Names of the differentiable arguments that are not None."""
        return [name for name in self.differentiable if args[name] is not None]

    def run(self, function: Callable, args: Arguments, grad: Tensor | None = None):
        """Output and all gradients, see :func:`suites.compare.run`."""
        return run(function, args, self.differentiable, grad)

    def operator_arguments(self, args: Arguments) -> tuple:
        """``args`` in the order and the types of the operator's schema."""
        values = []
        for argument in getattr(torch.ops.mmdcn, self.operator).default._schema.arguments:
            value = args[argument.name]
            if str(argument.type) == "List[int]":
                value = [value, value] if isinstance(value, int) else list(value)
            values.append(value)
        return tuple(values)
