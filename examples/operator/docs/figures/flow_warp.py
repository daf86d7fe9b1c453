"""The figure of flow_warp."""

from mmdcn import ops

from .panel import CENTRE, SIZE, Panel

TILE = 1  # the panel that stands for it where all operators are shown


def panel(title: str, dy: float, dx: float) -> Panel:
    def call(image):
        offset = image.new_tensor([dy, dx])[None, :, None, None].expand(1, 2, SIZE, SIZE)
        return ops.flow_warp(image, offset)[0, 0, CENTRE, CENTRE]

    return Panel(title, call, centre=(CENTRE, CENTRE))


def panels() -> list[Panel]:
    return [panel("offset = 0", 0, 0), panel("offset = (-2.5, 1.5)", -2.5, 1.5)]
