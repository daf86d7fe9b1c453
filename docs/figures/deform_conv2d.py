"""The figure of deform_conv2d."""

from .calls import convolution
from .panel import Panel

TILE = 1  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    return [
        convolution("offset = 0"),
        convolution("offset", seed=3),
        convolution("dilation = 2", dilation=2),
        convolution("stride = 2: the next output\nis two pixels on", stride=2, at=3),
        convolution("padding = 0: the first output", padding=0, at=0),
        convolution("padding = 1: the first output", padding=1, at=0),
        convolution("deform_groups = 2: two channels\nwith offsets of their own", seed=5,
                    deform_groups=2),
        convolution("groups = 2: the first output channel\nreads the first input channel",
                    groups=2),
    ]  # fmt: skip
