"""Detectors that extend MMDetection's; importing this module needs MMDetection."""

import mmdcn.models  # noqa: F401 - the backbones, for configs that import this module only
from mmdcn.models.detectors.dino import CBDINO, DINO, CBDINOHead, DINOHead

__all__ = ["CBDINO", "CBDINOHead", "DINO", "DINOHead"]
