"""What a checkpoint may hold besides tensors and plain Python objects, and who builds it.

PyTorch's restricted unpickler calls what a file names, from a list of allowed functions and
classes, and hands it the file's own arguments. NumPy's are not made for that: told the right flags
or an object dtype, they take bytes of the file for addresses. So a file that names them gets the
stand-ins here, which build numbers and nothing else.
"""

from __future__ import annotations

import math
import re
from pickle import UnpicklingError
from typing import Any

import numpy as np

try:
    from mmengine.logging import HistoryBuffer
except ModuleNotFoundError:  # plain PyTorch has no files with such a buffer
    HistoryBuffer = None

NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


class NumericDType:
    """Stands in for :class:`numpy.dtype`; `value` is a dtype of numbers."""

    value: np.dtype | None = None

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            raise UnpicklingError(f"Unsupported GLOBAL numpy.dtype({code!r})")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        # Version, byte order, subarray, names, fields, size, alignment, flags.
        order, rest = state[1], tuple(state[2:])
        if self.value is None or order not in tuple("<>=|") or rest != (None,) * 3 + (-1, -1, 0):
            raise UnpicklingError("numpy.dtype: it is not one of plain numbers")
        if order in "<>":
            self.value = self.value.newbyteorder(order)


class NumericArray:
    """Stands in for :class:`numpy.ndarray`; `value` is an array of numbers."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _numbers(dtype, shape, data, "F" if fortran else "C").copy(order="K")


def _numbers(dtype: NumericDType, shape: tuple, data: bytes, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, NumericDType) or dtype.value is None or not isinstance(data, bytes):
        raise UnpicklingError("numpy.ndarray: it is not one of plain numbers")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UnpicklingError(f"numpy.ndarray: {shape!r} is not a shape")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise UnpicklingError(f"numpy.ndarray: {len(data)} bytes do not fill the shape {shape!r}")
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _reconstruct(kind: type, shape: tuple, code: bytes) -> NumericArray:
    """Makes the array that ``NumericArray.__setstate__`` fills."""
    if kind is not NumericArray:
        raise UnpicklingError(f"numpy.ndarray: {kind!r} is not an array")
    return NumericArray()


def _scalar(dtype: NumericDType, data: bytes) -> np.generic:
    return _numbers(dtype, (), data)[()]


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, as which pickle writes the content of an empty array."""
    return b""


def _statistics_method(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, by which pickle names the methods that HistoryBuffer carries.

    MMEngine's own list of safe objects has the real one, with which a file can reach and run
    any function.
    """
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(owner, name)
    raise UnpicklingError(f"Unsupported GLOBAL getattr.{name}")


def allowed_globals() -> list:
    """For :class:`torch.serialization.safe_globals`; see :func:`with_numpy` for what it loads."""
    allowed = [
        (NumericArray, "numpy.ndarray"),
        (NumericDType, "numpy.dtype"),
        (_no_bytes, "builtins.bytes"),
    ]
    # numpy 2 renamed the module; files of either version load with both.
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(_reconstruct, f"{module}._reconstruct"), (_scalar, f"{module}.scalar")]
    if HistoryBuffer is not None:
        allowed += [HistoryBuffer, (_statistics_method, "builtins.getattr")]
    return allowed


def with_numpy(value: Any, seen: set[int] | None = None) -> Any:
    """Put arrays and dtypes in the place of their stand-ins, inside of containers too.

    Args:
        value: What was loaded with :func:`allowed_globals`; dicts and lists are changed in place.
        seen: Containers that are done or being done; a file can make one part of itself.
    """
    seen = set() if seen is None else seen
    if isinstance(value, NumericArray | NumericDType):
        if value.value is None:
            raise UnpicklingError("numpy: an array without content")
        return value.value
    if type(value) is tuple:
        return tuple(with_numpy(item, seen) for item in value)
    if id(value) in seen:
        return value
    if isinstance(value, dict):
        seen.add(id(value))
        for key, item in value.items():
            value[key] = with_numpy(item, seen)
    elif isinstance(value, list):
        seen.add(id(value))
        value[:] = [with_numpy(item, seen) for item in value]
    elif HistoryBuffer is not None and isinstance(value, HistoryBuffer):
        with_numpy(vars(value), seen)
    return value
