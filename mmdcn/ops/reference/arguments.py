"""Argument checks of the Python side; the native kernels have their own.

Each message names the argument, what was expected and what was got.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# One integer for both axes, or (vertical, horizontal).
IntPair = int | Sequence[int]

# Of a number of pixels, taps, groups and the like. Kernels rely on it.
MAX_SIZE = 2**31 - 1

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def pair(value: IntPair, name: str) -> list[int]:
    """``value`` as two integers (height, width); raises ValueError for anything else.

    NumPy's integers and the symbolic ones of torch.export are integers, too.
    """
    if isinstance(value, int | torch.SymInt):
        return [value, value]
    try:
        if not isinstance(value, Iterable) or isinstance(value, Tensor):
            return [_integer(value)] * 2
        first, second = map(_integer, value)
        return [first, second]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected one or two integers, got {value!r}") from None


def _integer(value) -> int:
    return value if isinstance(value, int | torch.SymInt) else operator.index(value)


def check_pair(value: Sequence[int], name: str, minimum: int) -> None:
    if len(value) != 2 or value[0] < minimum or value[1] < minimum:
        raise ValueError(f"{name}: expected two integers >= {minimum}, got {tuple(value)}")
    if max(value) > MAX_SIZE:
        raise ValueError(f"{name}: expected integers below 2^31, got {tuple(value)}")


def check_positive(value: int, name: str) -> None:
    if value <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")
    if value > MAX_SIZE:
        raise ValueError(f"{name}: expected a number below 2^31, got {value}")


def check_dim(tensor: Tensor, name: str, dim: int) -> None:
    if tensor.dim() != dim:
        raise ValueError(
            f"{name}: expected a {dim}-dimensional tensor, got shape {tuple(tensor.shape)}"
        )


def check_pixels(height: int, width: int) -> None:
    if height <= 0 or width <= 0:
        raise ValueError(f"input: expected at least one pixel, got {height}x{width}")
    # float32 holds positions up to 2^24 exactly, and kernels index a map with 32 bits.
    if max(height, width) > 2**24 or height * width >= 2**30:
        raise ValueError(
            "input: expected at most 2^24 rows and columns and fewer than 2^30 pixels in an "
            f"image, got {height}x{width}"
        )


def check_shape(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if tensor.dim() != len(shape) or any(a != b for a, b in zip(tensor.shape, shape, strict=True)):
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")


def check_floating(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in FLOATING:
        raise ValueError(
            f"{name}: expected dtype float64, float32, bfloat16 or float16, got {tensor.dtype}"
        )


def check_like(tensor: Tensor, name: str, first: Tensor, first_name: str) -> None:
    if tensor.device != first.device:
        raise ValueError(
            f"{name}: expected the device of {first_name} ({first.device}), got {tensor.device}"
        )
    if tensor.dtype != first.dtype:
        raise ValueError(
            f"{name}: expected the dtype of {first_name} ({first.dtype}), got {tensor.dtype}"
        )


def check_divisor(value: int, name: str, total: int, what: str) -> None:
    check_positive(value, name)
    if total <= 0 or total % value:
        raise ValueError(f"{name}: expected a divisor of the {total} {what}, got {value}")


def conv_out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output length of a sliding window along one axis; an empty output is an error."""
    reach = dilation * (kernel - 1) + 1
    span = size + 2 * padding - reach
    if span < 0:
        raise ValueError(
            f"input: expected a padded size of at least the dilated kernel size {reach}, "
            f"got {size + 2 * padding}"
        )
    return span // stride + 1
