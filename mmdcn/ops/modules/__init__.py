"""Modules around the channels-last operators."""

from .conv import DCNv3Conv2d, DCNv4Conv2d
from .dcnv3 import DCNv3
from .dcnv4 import DCNv4

__all__ = ["DCNv3", "DCNv3Conv2d", "DCNv4", "DCNv4Conv2d"]
