"""What torch asks of a native operator beside its kernels, most of it derived from the schemas.

``mmdcn::<name>`` has a backward operator ``mmdcn::<name>_backward`` whose schema follows a rule:

- ``grad_output`` comes first,
- then arguments of the forward operator, under the same names and in the same order: those that the
  gradients depend on,
- then flags ``need_<argument>``: whether this gradient is wanted, and those of its group (see
  :func:`register`); an unwanted gradient comes back as an empty tensor,
- last ``deterministic``: whether gradients must be the same bits in every run.
- It returns one gradient for each differentiable argument, in the order of the forward operator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _extension
from .reference.arguments import pair
from .reference.autocast import cast_arguments

_AUTOCAST_DEVICES = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
_library = torch.library.Library("mmdcn", "IMPL")  # noqa: TOR901 - lives as long as the process
# The arguments of each operator that are pairs of integers: position and name.
_pairs: dict[str, list[tuple[int, str]]] = {}


def call(name: str, reference: Callable, *args: Any) -> Tensor:
    """Call ``mmdcn::<name>``, or its reference on a device that has no kernel.

    Args:
        reference: takes the same arguments as the operator.
        args: those of the schema; pairs may be given as one integer.
    """
    if not _extension.use_native(args[0].device.type):
        return reference(*args)
    values = list(args)
    for position, argument in _pairs[name]:
        values[position] = pair(values[position], argument)
    return getattr(torch.ops.mmdcn, name).default(*values)


def register(
    name: str,
    *,
    output_shape: Callable[..., Sequence[int]],
    differentiable: Sequence[str | tuple[str, ...]],
    flops: Callable[[SimpleNamespace], int],
    backward_flops: Callable[[SimpleNamespace], int],
    keeps_memory_format: Collection[str] = (),
    gradient_shapes: Mapping[str, Callable[[SimpleNamespace], Sequence[int]]] = MappingProxyType(
        {}
    ),
    autocast_keeps: Collection[str] = (),
) -> None:
    """Register fake kernels, autograd, autocast and FLOP formulas of ``mmdcn::<name>``.

    Nothing happens where the library is missing.

    Args:
        output_shape: takes the operator's arguments, raises ValueError for those that do not fit,
            and returns the shape of the output.
        differentiable: names of the arguments with gradients, in the order of the schema; a tuple
            stands for a group whose gradients are computed together.
        flops, backward_flops: number of operations, for
            :class:`torch.utils.flop_counter.FlopCounterMode`. They get the arguments by name, with
            shapes in the place of tensors, and the former also ``output``.
        keeps_memory_format: which of ``"output"`` and the gradients (by the name of the argument)
            are channels last when ``input`` is; the rest is contiguous.
        gradient_shapes: shapes of gradients for arguments that the backward operator does not take.
        autocast_keeps: names of arguments whose dtype autocast leaves alone, e.g. coordinates.
    """
    if not _extension.schemas_available():
        return
    forward, backward = _overload(name), _overload(f"{name}_backward")
    names, backward_names = _argument_names(forward), _argument_names(backward)
    arguments = {argument.name: argument for argument in forward._schema.arguments}
    kept = [n for n in backward_names if n in arguments]
    saved = [n for n in kept if "Tensor" in str(arguments[n].type)]
    options = [n for n in kept if n not in saved]
    groups = [(group,) if isinstance(group, str) else group for group in differentiable]
    flagged = [group for group in groups if f"need_{group[0]}" in backward_names]
    _pairs[name] = [(i, n) for i, n in enumerate(names) if str(arguments[n].type) == "List[int]"]

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
        given = SimpleNamespace(**dict(zip(backward_names, values, strict=True)))

        def gradient(argument: str, group: tuple[str, ...]) -> Tensor:
            if not getattr(given, f"need_{group[0]}", True):
                shape = (0,)
            elif argument in gradient_shapes:
                shape = gradient_shapes[argument](given)
            else:
                tensor = getattr(given, argument)
                shape = (0,) if tensor is None else tensor.shape
            return empty(argument, shape, given.input)

        gradients = tuple(gradient(argument, group) for group in groups for argument in group)
        return gradients if len(gradients) > 1 else gradients[0]

    def setup_context(ctx, inputs, output):
        values = dict(zip(names, inputs, strict=True))
        ctx.save_for_backward(*(values[n] for n in saved))
        ctx.options = [values[n] for n in options]

    def differentiate(ctx, grad_output):
        needed = dict(zip(names, ctx.needs_input_grad, strict=True))
        tensors = dict(zip(saved, ctx.saved_tensors, strict=True))
        values = {**tensors, **dict(zip(options, ctx.options, strict=True))}
        gradients = backward(
            grad_output,
            *(values[n] for n in kept),
            *(any(needed[n] for n in group) for group in flagged),
            torch.are_deterministic_algorithms_enabled(),
        )
        if isinstance(gradients, Tensor):
            gradients = (gradients,)
        flat = (argument for group in groups for argument in group)
        found = dict(zip(flat, gradients, strict=True))
        return tuple(found[n] if n in found and needed[n] else None for n in names)

    torch.library.register_fake(f"mmdcn::{name}", fake)
    torch.library.register_fake(f"mmdcn::{name}_backward", backward_fake)
    torch.library.register_autograd(f"mmdcn::{name}", differentiate, setup_context=setup_context)
    # Without a formula of its own the backward operator would give silently wrong second
    # derivatives.
    torch.library.register_autograd(f"mmdcn::{name}_backward", _refuse(name))
    for device_type, key in _AUTOCAST_DEVICES.items():
        _register_autocast(name, device_type, key, autocast_keeps)
    _register_flops(name, flops)
    _register_flops(f"{name}_backward", backward_flops)


def _overload(name: str):
    return getattr(torch.ops.mmdcn, name).default


def _argument_names(op) -> list[str]:
    return [argument.name for argument in op._schema.arguments]


def _is_channels_last(tensor: Tensor) -> bool:
    """Not for tensors that are contiguous as well, as those with one channel are."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    return channels_last and not tensor.is_contiguous()


def _refuse(name: str) -> Callable:
    def backward(ctx, *grads):
        raise RuntimeError(
            f"mmdcn::{name}: second derivatives are not implemented; mmdcn.ops.reference has them"
        )

    return backward


def _register_autocast(name: str, device_type: str, key: str, keep: Collection[str]) -> None:
    # torch.library.register_autocast fixes the dtype; this one follows the autocast region.
    op = _overload(name)
    names = _argument_names(op)
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*args):
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*cast_arguments(names, args, device_type, keep))

    _library.impl(name, kernel, key)


def _register_flops(name: str, formula: Callable[[SimpleNamespace], int]) -> None:
    names = _argument_names(_overload(name))

    def by_name(*shapes, out_shape, **_):
        return formula(SimpleNamespace(**dict(zip(names, shapes, strict=True)), output=out_shape))

    register_flop_formula(getattr(torch.ops.mmdcn, name))(by_name)
