"""What torch asks of a native operator beside its kernels, most of it derived from the schemas."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.utils.flop_counter import register_flop_formula

from .. import _extension
from ._differentiation import register_derivatives
from ._schema import Operator, argument_names
from .reference.arguments import check_like, check_shape, pair
from .reference.autocast import cast_arguments

_AUTOCAST_DEVICES = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
_library = torch.library.Library("mmdcn", "IMPL")  # noqa: TOR901 - lives as long as the process
# All that are registered, by name.
OPERATORS: dict[str, Operator] = {}


def call(name: str, reference: Callable, *args: Any) -> Tensor:
    """Call ``mmdcn::<name>``, or its reference on a device that has no kernel.

    Args:
        reference: takes the same arguments as the operator.
        args: those of the schema; pairs may be given as one integer.
    """
    symbolic = any(isinstance(arg, Proxy) for arg in args)
    if symbolic and name not in OPERATORS:
        return torch.overrides.handle_torch_function(reference, args, *args)
    if not symbolic and not _extension.use_native(args[0].device.type):
        return reference(*args)
    if name not in OPERATORS:
        _warn_of_old_library(name)
        return reference(*args)
    values = list(args)
    for position, argument in OPERATORS[name].pairs:
        values[position] = pair(values[position], argument)
    return OPERATORS[name].forward(*values)


@functools.cache
def _warn_of_old_library(name: str) -> None:
    warnings.warn(
        f"mmdcn.ops.{name} runs on its slow PyTorch reference: the native library was built "
        "without it; build it again",
        RuntimeWarning,
        stacklevel=4,  # the line that called the operator
    )


def register(
    name: str,
    reference: Callable[..., Tensor],
    *,
    output_shape: Callable[..., Sequence[int]],
    differentiable: Sequence[str | tuple[str, ...]],
    flops: Callable[[SimpleNamespace], int],
    backward_flops: Callable[[SimpleNamespace], int],
    shared: Sequence[str] = (),
    keeps_memory_format: Collection[str] = (),
    gradient_shapes: Mapping[str, Callable[[SimpleNamespace], Sequence[int]]] = MappingProxyType(
        {}
    ),
    autocast_keeps: Collection[str] = (),
) -> None:
    """Register fake kernels, derivatives, vmap, autocast and FLOP formulas of ``mmdcn::<name>``.

    The schemas must obey the rule in :mod:`mmdcn.ops._schema`. Nothing happens where the library is
    missing, or was built when the operator had no kernels.

    Args:
        reference, output_shape, differentiable, shared, gradient_shapes: see
            :class:`mmdcn.ops._schema.Operator`.
        flops, backward_flops: number of operations, for
            :class:`torch.utils.flop_counter.FlopCounterMode`. They get the arguments by name, with
            shapes in the place of tensors, and the former also ``output``.
        keeps_memory_format: which of ``"output"`` and the gradients (by the name of the argument)
            are channels last when ``input`` is; the rest is contiguous.
        autocast_keeps: names of arguments whose dtype autocast leaves alone, e.g. coordinates.
    """
    if not (_extension.schemas_available() and hasattr(torch.ops.mmdcn, name)):
        return
    operator = Operator(name, reference, output_shape, differentiable, shared, gradient_shapes)
    OPERATORS[name] = operator

    def empty(result: str, shape: Sequence[int], input: Tensor) -> Tensor:
        memory_format = torch.contiguous_format
        if result in keeps_memory_format and _is_channels_last(input):
            memory_format = torch.channels_last
        return torch.empty(
            shape, dtype=input.dtype, device=input.device, memory_format=memory_format
        )

    def fake(input, *rest):
        return empty("output", output_shape(input, *rest), input)

    def backward_fake(*values):
        given = dict(zip(operator.backward_names, values, strict=True))
        shape = output_shape(*(given.get(n) for n in operator.names))
        check_like(given["grad_output"], "grad_output", given["input"], "input")
        check_shape(given["grad_output"], "grad_output", tuple(shape))
        gradients = tuple(
            empty(argument, operator.gradient_shape(argument, given), given["input"])
            for argument in operator.differentiable
        )
        return gradients if len(gradients) > 1 else gradients[0]

    def cast(args: Sequence[Any]) -> list[Any]:
        device_type = args[0].device.type
        if device_type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type):
            return cast_arguments(operator.names, args, device_type, autocast_keeps)
        return list(args)

    torch.library.register_fake(f"mmdcn::{name}", fake)
    torch.library.register_fake(f"mmdcn::{name}_backward", backward_fake)
    register_derivatives(operator, _library, cast)
    for key in _AUTOCAST_DEVICES.values():
        _library.impl(name, _autocast_kernel(operator, key, cast), key)
    _register_flops(operator.forward, flops)
    _register_flops(operator.backward, backward_flops)


def _is_channels_last(tensor: Tensor) -> bool:
    """Not for tensors that are contiguous as well, as those with one channel are."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    return channels_last and not tensor.is_contiguous()


def _autocast_kernel(operator: Operator, key: str, cast: Callable) -> Callable:
    # torch.library.register_autocast fixes the dtype; this one follows the autocast region.
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*args):
        args = cast(args)  # before the guard, which switches autocast off
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator.forward(*args)

    return kernel


def _register_flops(op, formula: Callable[[SimpleNamespace], int]) -> None:
    names = argument_names(op)

    def by_name(*shapes, out_shape, **_):
        return formula(SimpleNamespace(**dict(zip(names, shapes, strict=True)), output=out_shape))

    register_flop_formula(op.overloadpacket)(by_name)
