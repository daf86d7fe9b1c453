"""Backbones built on the deformable operators."""

from mmdcn.models.backbones.cb_intern_image import CBInternImage
from mmdcn.models.backbones.intern_image import FlashInternImage, InternImage

__all__ = ["CBInternImage", "FlashInternImage", "InternImage"]
