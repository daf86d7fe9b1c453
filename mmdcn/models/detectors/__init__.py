"""Detectors that extend MMDetection's; importing this module needs MMDetection."""

from mmdcn.models.detectors.dino import CBDINO, DINO
from mmdcn.models.detectors.mimic import MimicRCNN

__all__ = ["CBDINO", "DINO", "MimicRCNN"]
