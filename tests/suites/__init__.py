"""The table of suites: what all tests of the operators read, whatever device they run on.

Each operator has a file here that lists its suites in ``SUITES``; a new one is found by itself.
"""

import importlib
import pkgutil

from .suite import Suite

SUITES: dict[str, type[Suite]] = {
    suite.name: suite
    for file in pkgutil.iter_modules(__path__)
    for suite in getattr(importlib.import_module(f"{__name__}.{file.name}"), "SUITES", ())
}
