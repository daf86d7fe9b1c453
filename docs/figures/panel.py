"""A panel of a figure, and how it is drawn.

A panel shows which pixels one output value reads: its gradient with respect to the input. The
pictures therefore always agree with the code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

SIZE = 11  # pixels of the input along each axis
CENTRE = SIZE // 2
PALETTE = ("#1f6fb4", "#e0700a", "#2f9e44", "#8e44ad", "#c2255c", "#0b7285", "#a67c00", "#5c6bc0",
           "#6d4c41")  # fmt: skip
NEGATIVE = "#c1121f"


@dataclass
class Panel:
    """One picture: a call of the operator and what to say about it."""

    title: str
    call: Callable[[Tensor], Tensor]  # input -> the output value whose reads are shown
    channels: int = 1
    channels_last: bool = False
    box: tuple[float, float, float, float] | None = None  # x1, y1, x2, y2 in pixel indices
    centre: tuple[int, int] | None = None  # (row, column) of the output pixel, in the input
    reads: np.ndarray = field(init=False)  # (channels, SIZE, SIZE)

    def __post_init__(self) -> None:
        shape = (1, self.channels, SIZE, SIZE)
        image = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        output = self.call(image.permute(0, 2, 3, 1) if self.channels_last else image)
        (gradient,) = torch.autograd.grad(output.sum(), image)
        self.reads = gradient[0].numpy()


def colours(reads: np.ndarray) -> np.ndarray:
    """``(channels, H, W)`` -> ``(H, W, 3)``: a hue per channel, the paler the less is read."""
    strength = (np.abs(reads) / np.abs(reads).max())[..., None]
    hues = np.array([to_rgb(hue) for hue in PALETTE[: len(reads)]])[:, None, None]
    hues = np.where(reads[..., None] < 0, to_rgb(NEGATIVE), hues)
    total = strength.sum(0)
    mixed = (strength * hues).sum(0) / np.maximum(total, 1e-9)
    return 1 - np.minimum(total, 1) ** 0.8 * (1 - mixed)


def draw(panels: list[Panel], path: Path) -> None:
    columns = 4
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.95 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, panel in zip(axes, panels, strict=False):
        draw_panel(ax, panel)
        ax.set_title(panel.title, fontsize=9)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    figure.savefig(path, dpi=160)


def draw_tile(panel: Panel, path: Path) -> None:
    figure = Figure(figsize=(2, 2))
    draw_panel(figure.add_axes((0.02, 0.02, 0.96, 0.96)), panel)
    figure.savefig(path, dpi=160)


def draw_panel(ax: Axes, panel: Panel) -> None:
    ax.imshow(colours(panel.reads), interpolation="nearest")
    ax.set_xticks(np.arange(SIZE + 1) - 0.5, [])
    ax.set_yticks(np.arange(SIZE + 1) - 0.5, [])
    ax.grid(color="#d0d0d0", linewidth=0.6)
    ax.tick_params(length=0)
    if panel.centre:
        row, column = panel.centre
        ax.plot(column, row, "x", color="black", markersize=6, clip_on=False)
    if panel.box:
        x1, y1, x2, y2 = panel.box
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=1.6))
