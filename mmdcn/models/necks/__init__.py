"""Necks, which adapt a backbone's feature maps to heads."""

from mmdcn.models.necks.last_map_conv import LastMapConv

__all__ = ["LastMapConv"]
