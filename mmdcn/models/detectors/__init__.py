"""Detectors that extend MMDetection's; importing this module needs MMDetection."""

from mmdcn.models.detectors.dino import CBDINO, DINO

__all__ = ["CBDINO", "DINO"]
