"""Necks, which adapt a backbone's feature maps to heads."""

from mmdcn.models.necks.classification import CLIPProjector, ConvPooling
from mmdcn.models.necks.last_map_conv import LastMapConv

__all__ = ["CLIPProjector", "ConvPooling", "LastMapConv"]
