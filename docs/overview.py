"""Draws the picture of README: what deformation does, learnt on a picture of the demo's data set.

    python docs/overview.py

Offsets, masks and bins are found by a few hundred steps of gradient ascent through mmdcn's
operators, which are asked to see as much of the object as they can.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "dataset_converters")]

import cv2  # noqa: E402
import deformed_shapes_drawing as drawing  # noqa: E402
import deformed_shapes_outlines as outlines  # noqa: E402

from mmdcn import ops  # noqa: E402

SIZE, DILATION = 96, 20
CENTRE = (48, 30)  # (row, column) of the output pixel that looks
BOX = (10.0, 9.0, 76.0, 87.0)  # x1, y1, x2, y2
RED, WHITE = "#e8103a", "white"


def scene(seed: int) -> tuple[np.ndarray, Tensor]:
    """A photograph of a crescent, ``(SIZE, SIZE, 3)``, and how near each pixel is to it, 0 to 1."""
    rng = np.random.default_rng(seed)
    alpha = drawing.coverage([outlines.crescent() * 0.36 * SIZE + SIZE / 2], SIZE)
    image = drawing.background(rng, SIZE)
    light = np.array([0.6, -0.8], np.float32)
    drawing.paint(image, alpha, light, rng, hue=0.12)
    near = sum(cv2.GaussianBlur(alpha, (0, 0), s) for s in (1.5, 4, 10)) / 3
    return drawing.photograph(image, rng), torch.from_numpy(near).double()[None, None]


def ascend(parameters: list[Tensor], gain, steps: int = 400) -> None:
    optimizer = torch.optim.Adam(parameters, lr=0.15)
    for _ in range(steps):
        optimizer.zero_grad()
        (-gain()).backward()
        optimizer.step()


def taps(offset: Tensor) -> np.ndarray:
    """``(18,)`` offsets -> ``(9, 2)`` positions (row, column) in pixels."""
    grid = torch.cartesian_prod(*[torch.arange(-1, 2)] * 2) * DILATION + torch.tensor(CENTRE)
    return (grid + offset.detach().view(9, 2)).numpy()


def sample(near: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """What a 3x3 kernel of ones at CENTRE reads."""
    where = near.new_zeros(SIZE, SIZE)
    where[CENTRE] = 1
    weight = near.new_ones(1, 1, 3, 3)
    output = ops.modulated_deform_conv2d(
        near, offset.view(1, 18, 1, 1) * where, mask.view(1, 9, 1, 1) * where, weight,
        padding=DILATION, dilation=DILATION,
    )  # fmt: skip
    return output[0, 0, CENTRE[0], CENTRE[1]]


def crowding(offset: Tensor) -> Tensor:
    """Large when taps lie on top of each other."""
    grid = torch.cartesian_prod(*[torch.arange(-1.0, 2)] * 2) * DILATION
    places = grid + offset.view(9, 2)
    return overlap(places, 11.0)


def overlap(places: Tensor, reach: float) -> Tensor:
    distance = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-distance / reach**2).sum() - len(places)


def learn(near: Tensor, stiffness: float, modulated: bool) -> tuple[Tensor, Tensor]:
    """Offsets ``(18,)`` and masks ``(9,)``; `stiffness` holds the offsets back."""
    offset = near.new_zeros(18, requires_grad=True)
    logits = near.new_zeros(9, requires_grad=True)
    ones = near.new_ones(9)

    def gain() -> Tensor:
        mask = logits.sigmoid() if modulated else ones
        seen = sample(near, offset, mask)
        # A sample that sees less than half of the object is not worth its weight.
        return seen - 0.5 * mask.sum() - 0.1 * crowding(offset) - stiffness * offset.square().sum()

    ascend([offset, logits] if modulated else [offset], gain)
    return offset.detach(), logits.sigmoid().detach() if modulated else ones


def learn_bins(near: Tensor) -> Tensor:
    """``(2, 3, 3)`` shifts of the bins in pixels, (x, y)."""
    rois = near.new_tensor([[0, *BOX]])
    offset = near.new_zeros(1, 2, 3, 3, requires_grad=True)
    pool = dict(output_size=3, sampling_ratio=4, gamma=0.1)

    sides = near.new_tensor([BOX[2] - BOX[0], BOX[3] - BOX[1]]).view(2, 1, 1)
    grid = torch.stack(torch.meshgrid(*[torch.arange(3.0)] * 2, indexing="xy")) * sides / 3

    def gain() -> Tensor:
        places = (grid + offset[0] * pool["gamma"] * sides).flatten(1).T
        return ops.deform_roi_pool(near, rois, offset, **pool).sum() - 0.1 * overlap(places, 19.0)

    ascend([offset], gain)
    return offset.detach()[0] * pool["gamma"] * sides


def draw_taps(ax: Axes, offset: Tensor, mask: Tensor) -> None:
    start, end = taps(torch.zeros(18)), taps(offset)
    for (y0, x0), (y1, x1), m in zip(start, end, mask.tolist(), strict=True):
        if np.hypot(y1 - y0, x1 - x0) > 2:
            ax.plot([x0, x1], [y0, y1], color=WHITE, lw=1.2, alpha=0.8)
        ax.plot(x1, y1, "o", color=RED, mec=WHITE, mew=1.1, ms=2.5 + 7 * m)
    ax.plot(CENTRE[1], CENTRE[0], "+", color=WHITE, ms=9, mew=2)


def draw_bins(ax: Axes, shift: Tensor) -> None:
    x1, y1, x2, y2 = BOX
    width, height = (x2 - x1) / 3, (y2 - y1) / 3
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=WHITE, lw=1.5))
    for i in range(3):
        for j in range(3):
            dx, dy = shift[:, i, j].tolist()
            corner = (x1 + j * width + dx + 1.5, y1 + i * height + dy + 1.5)
            ax.add_patch(Rectangle(corner, width - 3, height - 3, fill=False, ec=RED, lw=1.6))


def main(path: Path) -> None:
    image, near = scene(seed=9)
    ones = torch.ones(9)
    panels = {
        "conv2d\na fixed grid": lambda ax: draw_taps(ax, torch.zeros(18), ones),
        "deform_conv2d\nlearns where to look": lambda ax: draw_taps(
            ax, *learn(near, 0.0001, modulated=False)
        ),
        "modulated_deform_conv2d\nand how much it counts": lambda ax: draw_taps(
            ax, *learn(near, 0.003, modulated=True)
        ),
        "deform_roi_pool\nmoves the bins of a region": lambda ax: draw_bins(ax, learn_bins(near)),
    }
    figure = Figure(figsize=(9.6, 2.85), layout="constrained")
    for ax, (title, draw) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        ax.imshow(image, interpolation="bilinear")
        ax.set(xlim=(-0.5, SIZE - 0.5), ylim=(SIZE - 0.5, -0.5))
        ax.axis("off")
        draw(ax)
        ax.set_title(title, fontsize=9.5)
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.04, pil_kwargs=dict(quality=88))


if __name__ == "__main__":
    main(Path(__file__).parent / "images" / "overview.jpg")
