"""The operators in plain, differentiable PyTorch.

They define the meaning of each operator and what arguments it takes, serve as the oracle of the
tests, and run where no native kernel does: any device, any torch. float16 and bfloat16 are computed
in float32.
"""

import importlib
import pkgutil

# An operator's file names what it defines in its own ``__all__``; files without one hold parts.
__all__ = []
for _file in pkgutil.iter_modules(__path__):
    _module = importlib.import_module(f"{__name__}.{_file.name}")
    for _name in getattr(_module, "__all__", ()):
        globals()[_name] = getattr(_module, _name)
        __all__.append(_name)
