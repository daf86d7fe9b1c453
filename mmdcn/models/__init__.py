"""Layers and backbones for OpenMMLab configs; importing this module registers all of them.

It needs MMEngine only. MMDetection and MMSegmentation find the modules by the prefix ``mmdcn.``.
"""

from mmdcn.models import backbones, dcn

__all__ = ["backbones", "dcn"]
