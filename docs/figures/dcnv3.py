"""The figure of dcnv3."""

from .calls import aggregation
from .panel import Panel

TILE = 7  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    return [
        aggregation("offset = 0"),
        aggregation("offset", seed=3),
        aggregation("mask from 0 to 1: the taps run\nin columns", weights="rising"),
        aggregation("mask_softmax = True: weights\nare positive, their sum is 1",
                    weights="steep", mask_softmax=True),
        aggregation("offset_scale = 2: the grid grows", offset_scale=2.0),
        aggregation("offset_scale = 0.5", offset_scale=0.5),
        aggregation("remove_center = True", remove_center=True),
        aggregation("groups = 2: two channels with\noffsets of their own", seed=5, groups=2),
        aggregation("dilation = 2", dilation=2),
        aggregation("stride = 2", stride=2, at=3),
        aggregation("padding = 1: the first output", at=0),
        aggregation("kernel_size = 5", kernel_size=5),
    ]  # fmt: skip
