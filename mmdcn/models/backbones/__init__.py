"""Backbones built on the deformable operators."""

from mmdcn.models.backbones.intern_image import FlashInternImage, InternImage

__all__ = ["FlashInternImage", "InternImage"]
