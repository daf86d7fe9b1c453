"""Autocast of the operators: all tensors take the region's dtype, float64 ones excepted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch


def cast(value: Any, device_type: str) -> Any:
    """``value`` as the autocast region of ``device_type`` wants it."""
    wanted = (
        isinstance(value, torch.Tensor)
        and value.device.type == device_type
        and value.is_floating_point()
        and value.dtype != torch.float64
    )
    return value.to(torch.get_autocast_dtype(device_type)) if wanted else value


def cast_arguments(
    names: Collection[str], values: Collection[Any], device_type: str, keep: Collection[str]
) -> list[Any]:
    """All values cast, but for those named in ``keep``."""
    return [
        value if name in keep else cast(value, device_type)
        for name, value in zip(names, values, strict=False)
    ]


def cast_once(function: Callable | None = None, *, keep: Collection[str] = ()) -> Callable:
    """Make an operator in plain PyTorch follow autocast as the native ones do.

    Its tensors are cast at the door, but for those of the arguments named in ``keep``; inside,
    where autocast would choose a dtype for each operation, it is off.
    """
    if function is None:
        return functools.partial(cast_once, keep=keep)
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def wrapper(input, *args, **kwargs):
        device_type = input.device.type
        if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(
            device_type
        ):
            return function(input, *args, **kwargs)
        args = cast_arguments(names, (input, *args), device_type, keep)
        values = cast_arguments(kwargs.keys(), kwargs.values(), device_type, keep)
        with torch.autocast(device_type, enabled=False):
            return function(*args, **dict(zip(kwargs, values, strict=True)))

    return wrapper
