"""The figure of modulated_deform_conv2d."""

from .calls import convolution
from .panel import Panel

TILE = 3  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    return [
        convolution("offset = 0, mask = 1"),
        convolution("offset, mask = 1", seed=3),
        convolution("offset = 0, mask from 0 to 1,\ntap by tap in rows", mask=True),
        convolution("offset and mask", seed=3, mask=True),
    ]
