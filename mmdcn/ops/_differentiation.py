"""Derivatives of the native operators, of any order and in both modes, and vmap.

First derivatives in reverse mode have kernels. All others are derivatives of the reference: slower,
and right. vmap folds the mapped axis into the axis of images or regions where it can, and is a loop
where tensors that all images share, or their gradients, differ along the mapped axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._schema import Operator


def register_derivatives(
    operator: Operator, library: torch.library.Library, cast: Callable[[Sequence[Any]], list[Any]]
) -> None:
    """Register the operator and its backward operator for autograd and :mod:`torch.func`.

    Args:
        cast: the arguments of the operator as the autocast region in force wants them.
    """
    forward, backward = _forward_function(operator), _backward_function(operator)
    for name, op, function in (
        (operator.name, operator.forward, forward),
        (f"{operator.name}_backward", operator.backward, backward),
    ):
        library.impl(name, _autograd_kernel(op, function), "Autograd")
    # torch.func sees a call before autograd and autocast do, and only here a function can tell it
    # how it is to be transformed.
    mode = "FuncTorchDynamicLayerFrontMode"
    library.impl(operator.name, lambda *args: forward.apply(*cast(args)), mode)
    library.impl(f"{operator.name}_backward", lambda *args: backward.apply(*args), mode)


def _autograd_kernel(op, function: type[torch.autograd.Function]) -> Callable:
    def kernel(*args):
        # Without the second condition tangents would be dropped, which is the same as zeros.
        wanted = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if wanted or forward_ad._current_level >= 0:
            return function.apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return kernel


def _forward_function(operator: Operator) -> type[torch.autograd.Function]:
    saved = [n for n in operator.kept if n in operator.tensors]

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            with torch._C._AutoDispatchBelowAutograd():
                return operator.forward(*args)

        @staticmethod
        def setup_context(ctx, inputs, output):
            values = dict(zip(operator.names, inputs, strict=True))
            ctx.save_for_backward(*(values[n] for n in saved))
            ctx.save_for_forward(*(values[n] for n in operator.tensors))
            ctx.options = {n: v for n, v in values.items() if n not in operator.tensors}

        @staticmethod
        def backward(ctx, grad_output):
            values = {**dict(zip(saved, ctx.saved_tensors, strict=True)), **ctx.options}
            needed = dict(zip(operator.names, ctx.needs_input_grad, strict=True))
            gradients = operator.backward(*operator.backward_arguments(grad_output, values, needed))
            found = dict(zip(operator.differentiable, _as_tuple(gradients), strict=True))
            return tuple(found[n] if n in found and needed[n] else None for n in operator.names)

        @staticmethod
        def jvp(ctx, *tangents):
            tensors = dict(zip(operator.tensors, ctx.saved_tensors, strict=True))
            values = {**tensors, **ctx.options}
            args = [values[n] for n in operator.names]
            return _directional_derivative(operator.reference, args, tangents)

        @staticmethod
        def vmap(info, in_dims, *args):
            given = dict(zip(operator.names, args, strict=True))
            dims = dict(zip(operator.names, in_dims, strict=True))
            if any(dims[n] is not None for n in operator.shared):
                return _loop(Forward.apply, info.batch_size, in_dims, args)
            folded = _fold(operator, info.batch_size, dims, given)
            output = Forward.apply(*folded.values())
            return _unfold(output, info.batch_size), 0

    return type(operator.name, (Forward,), {})  # the name that graphs of autograd show


def _backward_function(operator: Operator) -> type[torch.autograd.Function]:
    names = operator.backward_names
    tensors = ["grad_output", *(n for n in operator.kept if n in operator.tensors)]

    def in_plain_pytorch(*args):
        """What the backward operator computes, as the derivative of the reference."""
        given = dict(zip(names, args, strict=True))
        needed = [n for n in operator.differentiable if operator.is_needed(n, given)]
        # An argument that the gradients do not depend on may have any value.
        primals = [
            given[n] if n in given else given["input"].new_zeros(operator.gradient_shape(n, given))
            for n in needed
        ]

        def call(*values):
            values = {**given, **dict(zip(needed, values, strict=True))}
            return operator.reference(*(values.get(n) for n in operator.names))

        gradients = torch.func.vjp(call, *primals)[1](given["grad_output"])
        found = dict(zip(needed, gradients, strict=True))
        empty = given["input"].new_zeros(0)
        return _as_result([found.get(n, empty) for n in operator.differentiable])

    def is_wanted(argument: str, given: dict[str, Any]) -> bool:
        return argument in operator.differentiable and operator.is_needed(argument, given)

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            with torch._C._AutoDispatchBelowAutograd():
                return operator.backward(*args)

        @staticmethod
        def setup_context(ctx, inputs, output):
            values = dict(zip(names, inputs, strict=True))
            ctx.save_for_backward(*(values[n] for n in tensors))
            ctx.save_for_forward(*(values[n] for n in tensors))
            ctx.options = {n: v for n, v in values.items() if n not in tensors}

        @staticmethod
        def backward(ctx, *grads):
            values = {**dict(zip(tensors, ctx.saved_tensors, strict=True)), **ctx.options}
            needed = [n for n, need in zip(names, ctx.needs_input_grad, strict=True) if need]

            def call(*chosen):
                given = {**values, **dict(zip(needed, chosen, strict=True))}
                return in_plain_pytorch(*(given[n] for n in names))

            _, vjp = torch.func.vjp(call, *(values[n] for n in needed))
            found = dict(zip(needed, vjp(_as_result(grads)), strict=True))
            return tuple(found.get(n) for n in names)

        @staticmethod
        def jvp(ctx, *tangents):
            values = {**dict(zip(tensors, ctx.saved_tensors, strict=True)), **ctx.options}
            return _directional_derivative(in_plain_pytorch, [values[n] for n in names], tangents)

        @staticmethod
        def vmap(info, in_dims, *args):
            given, dims = (
                dict(zip(names, args, strict=True)),
                dict(zip(names, in_dims, strict=True)),
            )
            if any(dims.get(n) is not None or is_wanted(n, given) for n in operator.shared):
                return _loop(Backward.apply, info.batch_size, in_dims, args)
            folded = _fold(operator, info.batch_size, dims, given)
            gradients = _as_tuple(Backward.apply(*folded.values()))
            needed = [operator.is_needed(n, given) for n in operator.differentiable]
            pairs = list(zip(gradients, needed, strict=True))
            outputs = [_unfold(g, info.batch_size) if need else g for g, need in pairs]
            return _as_result(outputs), _as_result([0 if need else None for _, need in pairs])

    return type(f"{operator.name}_backward", (Backward,), {})


def _directional_derivative(function: Callable, args: Sequence[Any], tangents: Sequence[Any]):
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def call(*values):
        changed = dict(zip(moving, values, strict=True))
        return function(*(changed.get(i, arg) for i, arg in enumerate(args)))

    primals, directions = (tuple(v[i] for i in moving) for v in (args, tangents))
    # Transposed twice, as forward mode cannot be nested.
    output, vjp = torch.func.vjp(call, *primals)
    zero = torch.utils._pytree.tree_map(torch.zeros_like, output)
    return torch.func.vjp(vjp, zero)[1](directions)[0]


def _fold(
    operator: Operator, size: int, dims: dict[str, int | None], given: dict[str, Any]
) -> dict[str, Any]:
    """`given` with the mapped axis, of length `size`, as a part of the first one."""
    folded = dict(given)
    for name, value in given.items():
        if isinstance(value, Tensor) and name not in operator.shared:
            dim = dims[name]
            value = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            folded[name] = value.flatten(0, 1)
    if "rois" in folded:
        images = folded["input"].shape[0] // size
        rois = folded["rois"].unflatten(0, (size, folded["rois"].shape[0] // size))
        folded["rois"] = _renumbered(rois, images).flatten(0, 1)
    return folded


def _renumbered(rois: Tensor, images: int) -> Tensor:
    """RoIs ``(B, R, 5)`` of B times `images` images, which are counted from 0 to ``B images``."""
    if rois.dtype not in (torch.float32, torch.float64):
        rois = rois.float()  # the larger numbers would be rounded
    index = rois[..., :1]
    first = torch.arange(rois.shape[0], device=rois.device)[:, None, None] * images
    # An image that a slice does not have must not become one of the next.
    index = torch.where(index < images, index + first.where(index >= 0, 0), float("inf"))
    return torch.cat([index, rois[..., 1:]], -1)


def _unfold(tensor: Tensor, size: int) -> Tensor:
    return tensor.unflatten(0, (size, tensor.shape[0] // size))


def _loop(function: Callable, size: int, in_dims: Sequence[int | None], args: Sequence[Any]):
    """One call for each index of the mapped axis."""

    def at(i: int) -> list[Any]:
        mapped = [isinstance(dim, int) for dim in in_dims]  # options have a list of Nones
        return [
            arg.select(dim, i) if along else arg
            for arg, dim, along in zip(args, in_dims, mapped, strict=True)
        ]

    calls = [_as_tuple(function(*at(i))) for i in range(size)]
    outputs = [torch.stack(found) for found in zip(*calls, strict=True)]
    return _as_result(outputs), _as_result([0] * len(outputs))


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _as_result(values: Sequence[Any]):
    """What an operator returns: a tuple, but for a single value."""
    return values[0] if len(values) == 1 else tuple(values)
