"""Detectors that extend MMDetection's; importing this module needs MMDetection."""

import mmdcn.models  # noqa: F401 - the backbones, for configs that import this module only
from mmdcn.models.detectors.dino import DINO, DINOHead

__all__ = ["DINO", "DINOHead"]
