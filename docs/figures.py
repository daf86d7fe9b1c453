"""Draws what the parameters of each operator do, by asking the operators themselves.

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

from mmdcn import ops

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


def offsets(taps: int, groups: int, strength: float, *, seed: int) -> Tensor:
    """The same offsets for every output pixel, ``(groups * taps * 2)`` values in pixels."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(groups * taps * 2, generator=generator, dtype=torch.float64)
    return (2 * values - 1) * strength


def convolution(title: str, *, seed: int | None = None, mask: bool = False, **kwargs) -> Panel:
    """A panel of (modulated) deformable convolution; `seed` chooses offsets."""
    groups, conv_groups = kwargs.get("deform_groups", 1), kwargs.get("groups", 1)
    channels = max(groups, conv_groups)
    stride, at = kwargs.get("stride", 1), kwargs.pop("at", CENTRE)
    kwargs.setdefault("padding", kwargs.get("dilation", 1))

    def call(image: Tensor) -> Tensor:
        weight = image.new_ones(conv_groups, channels // conv_groups, 3, 3)
        output = (SIZE + 2 * kwargs["padding"] - 2 * kwargs.get("dilation", 1) - 1) // stride + 1
        plane = image.new_ones(1, 1, output, output)
        offset = offsets(9, groups, 0.0 if seed is None else 1.2, seed=seed or 0)
        offset = offset[None, :, None, None] * plane
        if mask:
            factors = torch.linspace(0, 1, 9 * groups, dtype=image.dtype)[None, :, None, None]
            result = ops.modulated_deform_conv2d(image, offset, factors * plane, weight, **kwargs)
        else:
            result = ops.deform_conv2d(image, offset, weight, **kwargs)
        return result[0, 0, at, at]

    place = at * stride + kwargs.get("dilation", 1) - kwargs["padding"]
    return Panel(title, call, channels, centre=(place, place))


def aggregation(title: str, *, seed: int | None = None, version: int = 3, weights: str = "even",
                at: int = CENTRE, **kwargs) -> Panel:  # fmt: skip
    """A panel of dcnv3 or dcnv4; `seed` chooses offsets."""
    groups = kwargs.setdefault("groups", 1)
    side = kwargs.get("kernel_size", 3)
    kwargs.setdefault("padding", kwargs.get("dilation", 1) * (side // 2))
    taps = side**2 - kwargs.get("remove_center", False)

    def call(image: Tensor) -> Tensor:
        output = (SIZE - 1) // kwargs.get("stride", 1) + 1
        plane = image.new_ones(1, output, output, 1)
        offset = offsets(taps, groups, 0.0 if seed is None else 1.2, seed=seed or 0)
        mask = {
            "even": image.new_ones(taps * groups),
            "rising": torch.linspace(0, 1, taps, dtype=image.dtype).repeat(groups),
            "steep": torch.linspace(0, 4, taps, dtype=image.dtype).repeat(groups),
            "signed": torch.linspace(-1, 1, taps, dtype=image.dtype).repeat(groups),
        }[weights]
        if version == 3:
            result = ops.dcnv3(image, offset * plane, mask * plane, **kwargs)
        else:
            parts = torch.cat([offset.view(groups, -1), mask.view(groups, -1)], 1)
            result = ops.dcnv4(image, parts.flatten() * plane, **kwargs)
        return result[0, at, at]

    place = at * kwargs.get("stride", 1)
    return Panel(title, call, groups, channels_last=True, centre=(place, place))


def roi(title: str, function: Callable, box: tuple[float, ...], bin_: tuple[int, int] | None,
        channels: int = 1, drawn: tuple[float, ...] | None = None, **kwargs) -> Panel:  # fmt: skip
    """A panel of an RoI operator: what one bin reads, or all bins."""

    def call(image: Tensor) -> Tensor:
        rois = image.new_tensor([[0, *box]])
        pooled = function(image, rois, **kwargs)
        return pooled if bin_ is None else pooled[..., bin_[0], bin_[1]]

    return Panel(title, call, channels, box=drawn)


def constant(shape: tuple[int, ...], values: dict[tuple[int, ...], float], rest: float) -> Tensor:
    result = torch.full(shape, rest, dtype=torch.float64)
    for index, value in values.items():
        result[index] = value
    return result


def deform_conv2d() -> list[Panel]:
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


def modulated_deform_conv2d() -> list[Panel]:
    return [
        convolution("offset = 0, mask = 1"),
        convolution("offset, mask = 1", seed=3),
        convolution("offset = 0, mask from 0 to 1,\ntap by tap in rows", mask=True),
        convolution("offset and mask", seed=3, mask=True),
    ]


def dcnv3() -> list[Panel]:
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


def dcnv4() -> list[Panel]:
    return [
        aggregation("offsets 0, weights 1", version=4),
        aggregation("offsets", version=4, seed=3),
        aggregation("weights from -1 to 1 (red is\nnegative): no softmax", version=4,
                    weights="signed"),
        aggregation("groups = 2", version=4, seed=5, groups=2),
    ]  # fmt: skip


def roi_avg_pool() -> list[Panel]:
    exact, rounded, covered = (1.4, 2.3, 8.2, 7.8), (1, 2, 8, 8), (0.5, 1.5, 8.5, 8.5)
    kwargs = dict(function=ops.roi_avg_pool, output_size=3)
    return [
        roi("all bins: corners are rounded to\npixels, which belong to the RoI", box=exact,
            bin_=None, drawn=exact, **kwargs),
        roi("bin (0, 0) of output_size = 3", box=rounded, bin_=(0, 0), drawn=covered, **kwargs),
        roi("bin (1, 1): bins share pixels", box=rounded, bin_=(1, 1), drawn=covered, **kwargs),
        roi("bin (0, 0) of output_size = 2", function=ops.roi_avg_pool, output_size=2, box=rounded,
            bin_=(0, 0), drawn=covered),
        roi("spatial_scale = 0.5: the same RoI\non a map half as large", box=rounded, bin_=None,
            drawn=(0.5, 0.5, 4.5, 4.5), spatial_scale=0.5, **kwargs),
    ]  # fmt: skip


def ps_roi_pool() -> list[Panel]:
    box = (1, 1, 10, 10)
    kwargs = dict(function=ops.ps_roi_pool, output_size=3, channels=9, box=box,
                  drawn=(0.5, 0.5, 9.5, 9.5))  # fmt: skip
    return [
        roi("all bins: a colour per channel", bin_=None, **kwargs),
        roi("bin (0, 0): channel 0", bin_=(0, 0), **kwargs),
        roi("bin (1, 2): channel 5", bin_=(1, 2), **kwargs),
        roi("spatial_scale = 0.5", bin_=None, spatial_scale=0.5,
            **{**kwargs, "drawn": (0.5, 0.5, 4.5, 4.5)}),
    ]  # fmt: skip


def deform_roi_pool() -> list[Panel]:
    box = (1.0, 1.0, 10.0, 10.0)
    kwargs = dict(function=ops.deform_roi_pool, output_size=3, box=box, drawn=(0.5, 0.5, 9.5, 9.5))
    right = constant((1, 2, 3, 3), {(0, 0, 1, 1): 2.0}, 0.0)
    down = constant((1, 2, 3, 3), {(0, 1, 1, 1): 2.0}, 0.0)
    half = constant((1, 1, 3, 3), {(0, 0, 1, 1): 0.3}, 1.0)
    return [
        roi("bin (1, 1), offset = 0", bin_=(1, 1), **kwargs),
        roi("Δx = 2: shifted by 2 · gamma\n· width of the RoI", bin_=(1, 1), offset=right,
            **kwargs),
        roi("Δy = 2", bin_=(1, 1), offset=down, **kwargs),
        roi("Δx = 2, gamma = 0.15", bin_=(1, 1), offset=right, gamma=0.15, **kwargs),
        roi("mask: 0.3 for the bin\nin the middle", bin_=None, mask=half, **kwargs),
        roi("sampling_ratio = 1: one sample", bin_=(1, 1), sampling_ratio=1, **kwargs),
        roi("sampling_ratio = 2", bin_=(1, 1), sampling_ratio=2, **kwargs),
        roi("output_size = 2, bin (1, 1)", bin_=(1, 1), **{**kwargs, "output_size": 2}),
        roi("spatial_scale = 0.5, bin (1, 1)", bin_=(1, 1), spatial_scale=0.5,
            **{**kwargs, "drawn": (0.0, 0.0, 4.5, 4.5)}),
    ]  # fmt: skip


def deform_ps_roi_pool() -> list[Panel]:
    box = (1, 1, 9, 9)
    base = dict(function=ops.deform_ps_roi_pool, box=box, drawn=(0.5, 0.5, 9.5, 9.5),
                output_channels=1)  # fmt: skip
    three = dict(base, output_size=3, group_size=3, channels=9)
    shift = constant((1, 2, 3, 3), {(0, 0, 1, 1): 2.0}, 0.0)
    parts = constant((1, 2, 1, 1), {(0, 0, 0, 0): 1.0, (0, 1, 0, 0): 1.0}, 0.0)
    half = constant((1, 1, 3, 3), {(0, 0, 1, 1): 0.2}, 1.0)
    return [
        roi("all bins, group_size = 3: a colour\nper channel", bin_=None, **three),
        roi("group_size = 1: one channel", bin_=None,
            **dict(base, output_size=3, group_size=1, channels=1)),
        roi("bin (1, 1): channel 4", bin_=(1, 1), **three),
        roi("Δx = 2: shifted by 2 · trans_std\n· width of the RoI", bin_=(1, 1), offset=shift,
            **three),
        roi("part_size = 1: one offset for\nthe whole RoI", bin_=None, offset=parts, part_size=1,
            **three),
        roi("Δx = 2, trans_std = 0.15", bin_=(1, 1), offset=shift, trans_std=0.15, **three),
        roi("mask: 0.2 for the bin\nin the middle", bin_=None, mask=half, **three),
        roi("sample_per_part = 1: one sample,\nat the corner of the bin", bin_=(1, 1),
            sample_per_part=1, **three),
        roi("output_size = 6 with group_size = 3:\nbin (2, 3) is in cell (1, 1)", bin_=(2, 3),
            **{**three, "output_size": 6}),
        roi("spatial_scale = 0.5", bin_=None, spatial_scale=0.5,
            **{**three, "drawn": (0.0, 0.0, 4.5, 4.5)}),
    ]  # fmt: skip


# Each operator, and which of its panels stands for it on the first page.
FIGURES = {
    deform_conv2d: 1,
    modulated_deform_conv2d: 3,
    dcnv3: 7,
    dcnv4: 2,
    roi_avg_pool: 0,
    ps_roi_pool: 0,
    deform_roi_pool: 1,
    deform_ps_roi_pool: 3,
}


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


def main(folder: Path) -> None:
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    for figure, tile in FIGURES.items():
        panels = figure()
        draw(panels, folder / f"{figure.__name__}.png")
        draw_tile(panels[tile], folder / "tiles" / f"{figure.__name__}.png")


if __name__ == "__main__":
    main(Path(__file__).parent / "_generated" / "figures")
