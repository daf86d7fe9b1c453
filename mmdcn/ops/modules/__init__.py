"""Modules around the channels-last operators."""

from .dcnv3 import DCNv3
from .dcnv4 import DCNv4

__all__ = ["DCNv3", "DCNv4"]
