"""Layers and backbones for OpenMMLab configs; importing this module registers all of them.

It needs MMEngine only. MMDetection and MMSegmentation find the modules by the prefix ``mmdcn.``.
"""

from mmdcn.models import backbones, dcn, norm, roi_extractor

__all__ = ["backbones", "dcn", "norm", "roi_extractor"]
