"""Draws what the parameters of each operator do, by asking the operators themselves.

Each operator has a file here with its ``panels`` and the index of one of them, ``TILE``, that
stands for it where all are shown.
"""

import importlib
import pkgutil
from pathlib import Path

from .panel import draw, draw_tile

FILES = [file.name for file in pkgutil.iter_modules(__path__)]


def main(folder: Path) -> None:
    """Write the figures and tiles of all operators to a folder."""
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    for name in FILES:
        file = importlib.import_module(f"{__name__}.{name}")
        if hasattr(file, "TILE"):
            panels = file.panels()
            draw(panels, folder / f"{name}.png")
            draw_tile(panels[file.TILE], folder / "tiles" / f"{name}.png")
