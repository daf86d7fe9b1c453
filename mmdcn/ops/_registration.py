"""What every native operator registers beside its kernels."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from ._autocast import cast_arguments

_AUTOCAST_DEVICES = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
_library = torch.library.Library("mmdcn", "IMPL")  # noqa: TOR901 - lives as long as the process


def register(
    name: str,
    *,
    fake: Callable,
    backward_fake: Callable,
    setup_context: Callable,
    backward: Callable,
    flops: Callable,
    backward_flops: Callable,
    autocast_keeps: Collection[str] = (),
) -> None:
    """Give ``mmdcn::<name>`` and ``mmdcn::<name>_backward`` all that torch asks of an operator.

    Args:
        fake, backward_fake: shape functions, run on fake and meta tensors; they check arguments.
        setup_context, backward: as in :func:`torch.library.register_autograd`.
        flops, backward_flops: formulas for :class:`torch.utils.flop_counter.FlopCounterMode`.
        autocast_keeps: names of arguments whose dtype autocast leaves alone, e.g. coordinates.
    """
    torch.library.register_fake(f"mmdcn::{name}", fake)
    torch.library.register_fake(f"mmdcn::{name}_backward", backward_fake)
    torch.library.register_autograd(f"mmdcn::{name}", backward, setup_context=setup_context)
    # Without a formula of its own the backward operator would give silently wrong second
    # derivatives.
    torch.library.register_autograd(f"mmdcn::{name}_backward", _refuse(name))
    for device_type, key in _AUTOCAST_DEVICES.items():
        _register_autocast(name, device_type, key, autocast_keeps)
    _register_flops(name, flops)
    _register_flops(f"{name}_backward", backward_flops)


def _refuse(name: str) -> Callable:
    def backward(ctx, *grads):
        raise RuntimeError(
            f"mmdcn::{name}: second derivatives are not implemented; mmdcn.ops.reference has them"
        )

    return backward


def _register_autocast(name: str, device_type: str, key: str, keep: Collection[str]) -> None:
    # torch.library.register_autocast fixes the dtype; this one follows the autocast region.
    op = getattr(torch.ops.mmdcn, name).default
    names = [argument.name for argument in op._schema.arguments]
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*args):
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*cast_arguments(names, args, device_type, keep))

    _library.impl(name, kernel, key)


def _register_flops(name: str, formula: Callable) -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(getattr(torch.ops.mmdcn, name))(formula)
