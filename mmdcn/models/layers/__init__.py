"""Layers for OpenMMLab configs; importing this module registers them."""

from mmdcn.models.layers import operators  # noqa: F401 - registers the modules of mmdcn.ops
from mmdcn.models.layers.deformable import deformable
from mmdcn.models.layers.norm import LayerNorm2d
from mmdcn.models.layers.roi_extractor import SingleRoIExtractor

__all__ = ["LayerNorm2d", "SingleRoIExtractor", "deformable"]
