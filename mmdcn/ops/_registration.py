"""What every native operator registers beside its kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
) -> None:
    """Give ``mmdcn::<name>`` and ``mmdcn::<name>_backward`` all that torch asks of an operator.

    Args:
        fake, backward_fake: shape functions, run on fake and meta tensors; they check arguments.
        setup_context, backward: as in :func:`torch.library.register_autograd`.
        flops, backward_flops: formulas for :class:`torch.utils.flop_counter.FlopCounterMode`.
    """
    torch.library.register_fake(f"mmdcn::{name}", fake)
    torch.library.register_fake(f"mmdcn::{name}_backward", backward_fake)
    torch.library.register_autograd(f"mmdcn::{name}", backward, setup_context=setup_context)
    for device_type, key in _AUTOCAST_DEVICES.items():
        _register_autocast(name, device_type, key)
    _register_flops(name, flops)
    _register_flops(f"{name}_backward", backward_flops)


def _register_autocast(name: str, device_type: str, key: str) -> None:
    # torch.library.register_autocast fixes the dtype; this one follows the autocast region.
    op = getattr(torch.ops.mmdcn, name).default
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def cast(value, dtype):
        wanted = (
            isinstance(value, torch.Tensor)
            and value.device.type == device_type
            and value.is_floating_point()
            and value.dtype != torch.float64
        )
        return value.to(dtype) if wanted else value

    def kernel(*args):
        dtype = torch.get_autocast_dtype(device_type)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(cast(arg, dtype) for arg in args))

    _library.impl(name, kernel, key)


def _register_flops(name: str, formula: Callable) -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(getattr(torch.ops.mmdcn, name))(formula)
