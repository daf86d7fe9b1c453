"""A call of each operator, in a file with its name: ``arguments(scale)`` on the CPU in float64.

``scale`` is 1 for a small call, and larger for one whose time says something.
"""

from importlib import import_module
from pkgutil import iter_modules

NAMES = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def arguments(name: str, scale: int) -> dict:
    """Arguments of a public function of :mod:`mmdcn.ops`."""
    return import_module(f"{__name__}.{name}").arguments(scale)
