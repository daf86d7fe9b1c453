"""The table of suites: what all tests of the operators read, whatever device they run on.

Each operator has a file here that lists its suites in ``SUITES`` and, if it has modules, a call of
each of them in ``MODULES``. A new one is found by itself.
"""

import importlib
import pkgutil
from collections.abc import Callable

from torch import Tensor, nn

from .suite import Suite

_FILES = [importlib.import_module(f"{__name__}.{f.name}") for f in pkgutil.iter_modules(__path__)]

SUITES: dict[str, type[Suite]] = {
    suite.name: suite for file in _FILES for suite in getattr(file, "SUITES", ())
}
# Name of the class -> how to make one, and its inputs or their shapes.
MODULES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...] | Tensor]]] = {
    name: call for file in _FILES for name, call in getattr(file, "MODULES", {}).items()
}
