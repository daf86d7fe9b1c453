"""What follows from the schemas of an operator.

``mmdcn::<name>`` has a backward operator ``mmdcn::<name>_backward`` whose schema follows a rule:

- ``grad_output`` comes first,
- then arguments of the forward operator, under the same names and in the same order: those that the
  gradients depend on,
- then flags ``need_<argument>``: whether this gradient is wanted, and those of its group; an
  unwanted gradient comes back as an empty tensor,
- last ``deterministic``: whether gradients must be the same bits in every run.
- It returns one gradient for each differentiable argument, in the order of the forward operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

# The shape of a gradient, from the arguments of the backward operator.
GradientShape = Callable[[SimpleNamespace], Sequence[int]]


def overload(name: str):
    """The operator ``mmdcn::<name>``."""
    return getattr(torch.ops.mmdcn, name).default


def argument_names(op) -> list[str]:
    """Names in the operator's schema, in order."""
    return [argument.name for argument in op._schema.arguments]


class Operator:
    """An operator, its backward operator, and how their arguments are related.

    Args:
        name: ``<name>`` in ``mmdcn::<name>``.
        reference: the operator in plain PyTorch, with the arguments of the schema.
        output_shape: takes the operator's arguments, raises ValueError for those that do not fit,
            and returns the shape of the output.
        differentiable: names of the arguments with gradients, in the order of the schema; a tuple
            stands for a group whose gradients are computed together.
        shared: names of the tensors that are the same for all images, as weights are. The first
            axis of the others counts images or regions.
        gradient_shapes: shapes of gradients of arguments that the backward operator does not take.
    """

    def __init__(
        self,
        name: str,
        reference: Callable[..., Tensor],
        output_shape: Callable[..., Sequence[int]],
        differentiable: Sequence[str | tuple[str, ...]],
        shared: Sequence[str],
        gradient_shapes: Mapping[str, GradientShape],
    ) -> None:
        self.name = name
        self.reference = reference
        self.output_shape = output_shape
        self.forward, self.backward = overload(name), overload(f"{name}_backward")
        self.groups = [(group,) if isinstance(group, str) else group for group in differentiable]
        self.shared = shared
        self.gradient_shapes = gradient_shapes
        self.names, self.backward_names = (
            argument_names(self.forward),
            argument_names(self.backward),
        )
        arguments = {
            argument.name: str(argument.type) for argument in self.forward._schema.arguments
        }
        self.tensors = [n for n in self.names if "Tensor" in arguments[n]]
        # Position and name of the arguments that are pairs of integers.
        self.pairs = [(i, n) for i, n in enumerate(self.names) if arguments[n] == "List[int]"]
        self.kept = [n for n in self.backward_names if n in arguments]
        self.differentiable = [n for group in self.groups for n in group]

    @cached_property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """Flags of the backward operator and the arguments that each of them is about."""
        flags = {f"need_{group[0]}": group for group in self.groups}
        return {flag: group for flag, group in flags.items() if flag in self.backward_names}

    def is_needed(self, argument: str, given: Mapping[str, Any]) -> bool:
        """Whether the backward operator, called with `given`, gives this gradient."""
        flags = (given[flag] for flag, group in self.flags.items() if argument in group)
        return next(flags, True) and given.get(argument, 0) is not None

    def gradient_shape(self, argument: str, given: Mapping[str, Any]) -> Sequence[int]:
        """Shape of what the backward operator, called with `given`, returns for an argument."""
        if not self.is_needed(argument, given):
            return (0,)
        if argument in self.gradient_shapes:
            return self.gradient_shapes[argument](SimpleNamespace(**given))
        return given[argument].shape

    def backward_arguments(
        self, grad_output: Tensor, values: Mapping[str, Any], needed: Mapping[str, bool]
    ) -> list[Any]:
        """Arguments of the backward operator for those of the forward operator."""
        flags = (any(needed[n] for n in group) for group in self.flags.values())
        deterministic = torch.are_deterministic_algorithms_enabled()
        return [grad_output, *(values[n] for n in self.kept), *flags, deterministic]
