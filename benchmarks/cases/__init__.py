"""What is measured: operators, shapes, and the speed that they are expected to have.

Each operator has a file here that lists its cases in ``CASES``; a new one is found by itself.
"""

import importlib
import pkgutil

from .case import FB, Arguments, Case, F, to_device, to_dtype

__all__ = ["CASES", "FB", "Arguments", "Case", "F", "to_device", "to_dtype"]

CASES: list[Case] = [
    case
    for file in pkgutil.iter_modules(__path__)
    for case in getattr(importlib.import_module(f"{__name__}.{file.name}"), "CASES", ())
]
