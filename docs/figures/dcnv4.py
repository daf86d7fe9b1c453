"""The figure of dcnv4."""

from .calls import aggregation
from .panel import Panel

TILE = 2  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    return [
        aggregation("offsets 0, weights 1", version=4),
        aggregation("offsets", version=4, seed=3),
        aggregation("weights from -1 to 1 (red is\nnegative): no softmax", version=4,
                    weights="signed"),
        aggregation("groups = 2", version=4, seed=5, groups=2),
    ]  # fmt: skip
