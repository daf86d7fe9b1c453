"""Pictures and numbers of what a node looks at, for the tool and the pages that show them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.image import AxesImage
from torch import Tensor

from .effective import EffectiveSampling, trace
from .saliency import SaliencyRegion
from .subject import Node, Subject

COLUMNS = ("prediction", "samples", "strength", "receptive field", "region")
LEVELS = 3  # layers whose samples are followed
STRENGTH_UNIT = "|gradient| per pixel of the input"
FIELD_UNIT = "√(gradient / maximum)"
MOST_SAMPLES = 100_000  # that are followed: each layer multiplies them by its groups and taps


@dataclasses.dataclass
class Finding:
    """What was found out about a node.

    Attributes:
        node: the node.
        field: effective receptive field ``(h, w)``.
        layers: effective sampling of the layers that the node depends on, in their order.
        region: its error-bounded saliency region, if it was looked for.
    """

    node: Node
    field: Tensor
    layers: list[EffectiveSampling]
    region: SaliencyRegion | None = None


@dataclasses.dataclass
class Followed:
    """Samples that a node's place is made of, those of one layer followed into the next.

    Attributes:
        layers: names of the layers, the topmost first.
        places: ``(n, 2)`` as (x, y) in pixels of the input, where the last of the layers samples.
        weights: ``(n,)``, products of the masks on the way.
        strengths: ``(n,)``, how much the node depends on each: the length of the gradient, per
            pixel of the input.
    """

    layers: list[str]
    places: Tensor
    weights: Tensor
    strengths: Tensor


def windows(finding: Finding) -> list[EffectiveSampling]:
    """The layers of a finding that have windows, in their order."""
    return [item for item in finding.layers if item.sampling.is_window]


def main_window(subject: Subject, finding: Finding) -> int:
    """Index in :func:`windows` of the layer on whose samples the node depends most, in sum.

    Objects are found on different levels of a network, so that the last layer often says little. It
    is -1 where there are no windows.
    """
    sums = [float(samples_of(subject, item)[2].sum()) for item in windows(finding)]
    return max(range(len(sums)), key=lambda k: (sums[k], k), default=-1)


def followed(
    subject: Subject, finding: Finding, top: int | None = None, levels: int = LEVELS
) -> Followed:
    """The samples that the node's place is made of.

    Args:
        subject, finding: the model with its image, and what was found out about a node.
        top: index in :func:`windows` of the layer to begin with; None means :func:`main_window`.
        levels: how many layers are followed at most, each into the one before it. They are fewer
            where there would be more than :data:`MOST_SAMPLES` samples.

    Raises:
        IndexError: there is no such layer.
    """
    items = windows(finding)
    if not items and top is None:
        return Followed([], torch.zeros(0, 2), torch.zeros(0), torch.zeros(0))
    top = main_window(subject, finding) if top is None else top
    if not 0 <= top < len(items):
        raise IndexError(f"top: expected one of {len(items)} layers with windows, got {top}")
    chosen, samples = [], 1
    for item in items[top::-1][:levels]:
        samples *= item.sampling.locations.shape[3:5].numel()
        if chosen and samples > MOST_SAMPLES:
            break
        chosen.append(item)
    size = subject.inputs.shape[2:]
    height, width = chosen[0].sampling.locations.shape[1:3]
    x, y = finding.node.place
    column = min(max(int((x + 0.5) * width / size[1]), 0), width - 1)
    row = min(max(int((y + 0.5) * height / size[0]), 0), height - 1)
    found = trace([item.sampling for item in chosen], (row, column))[-1]
    item = chosen[-1]
    last = dataclasses.replace(item.sampling, locations=found.points.flatten(0, 2))
    strength = (item.total[0] / _stride(subject, item)).norm(dim=-1)
    return Followed(
        [item.sampling.layer for item in chosen],
        last.in_image(tuple(size)).cpu(),
        found.weights.flatten().cpu(),
        strength[found.cells[:, 1], found.cells[:, 0]].flatten().cpu(),
    )


def samples_of(subject: Subject, item: EffectiveSampling) -> tuple[Tensor, Tensor, Tensor]:
    """The samples of a layer with windows on which the node depends.

    Returns:
        Locations ``(n, 2)`` as (x, y) in pixels of the input, masks ``(n,)``, which are 1 where the
        layer has none, and gradients per pixel of the input ``(n,)``.
    """
    strength = (item.total / _stride(subject, item)).norm(dim=-1)
    kept = strength > 0
    masks = item.sampling.weights
    masks = torch.ones_like(strength) if masks is None else masks
    places = item.sampling.in_image(tuple(subject.inputs.shape[2:]))
    return places[kept].cpu(), masks[kept].cpu(), strength[kept].cpu()


def strengths(subject: Subject, finding: Finding) -> tuple[Tensor, Tensor]:
    """All samples of the windows, and how much the node depends on each.

    Returns:
        Locations ``(n, 2)`` as (x, y) in pixels of the input, and gradients per pixel of the input
        ``(n,)``; those of 0 are left out.
    """
    found = [samples_of(subject, item) for item in windows(finding)]
    places = [torch.zeros(0, 2), *(places for places, _, _ in found)]
    values = [torch.zeros(0), *(strength for _, _, strength in found)]
    return torch.cat(places), torch.cat(values)


def bins(subject: Subject, finding: Finding) -> tuple[Tensor, Tensor]:
    """Bins of the RoI poolings ``(n, 4)`` in pixels of the input, and their strengths ``(n,)``."""
    found = [bins_of(subject, item) for item in finding.layers if not item.sampling.is_window]
    boxes = [torch.zeros(0, 4), *(boxes for boxes, _ in found)]
    return torch.cat(boxes), torch.cat([torch.zeros(0), *(values for _, values in found)])


def bins_of(subject: Subject, item: EffectiveSampling) -> tuple[Tensor, Tensor]:
    """Bins of one RoI pooling, as :func:`bins`."""
    stride = _stride(subject, item)
    start = item.sampling.in_image(tuple(subject.inputs.shape[2:]))
    step = item.sampling.bin_sizes[:, None, None, None] * stride
    boxes = torch.cat([start, start + step], -1).flatten(0, -2)
    return boxes.cpu(), (item.total / stride).norm(dim=-1).flatten().cpu()


def _stride(subject: Subject, item: EffectiveSampling) -> Tensor:
    """Pixels of the input in one of a layer's map, along (x, y)."""
    sizes = zip(subject.inputs.shape[:1:-1], item.sampling.map_size[::-1], strict=True)
    return item.total.new_tensor([image / size for image, size in sizes])


def inside(subject: Subject, finding: Finding) -> dict[str, Any]:
    """Numbers of a finding, with shares of what lies inside the node's object.

    Keys: ``node``, ``object_area`` and ``region_area`` as shares of the image, ``region_error``,
    and the shares inside the object of the receptive field, of the strength of all samples
    (``strength``) and of the bins (``bin_strength``), of the followed samples by mask, and of the
    region. What there is not has None.
    """
    shape, region = finding.node.shape, finding.region

    def at(points: Tensor) -> Tensor:
        x, y = points.round().long().unbind(-1)
        known = (x >= 0) & (x < shape.shape[1]) & (y >= 0) & (y < shape.shape[0])
        return known & shape[y.clamp(0, shape.shape[0] - 1), x.clamp(0, shape.shape[1] - 1)]

    def share(values: Tensor, where: Tensor) -> float | None:
        total = float(values.sum())
        return float(values[where].sum()) / total if total > 0 else None

    numbers: dict[str, Any] = dict(node=finding.node.title)
    if region is not None:
        numbers |= dict(region_area=region.area, region_error=region.error)
    if shape is None:
        return numbers
    boxes, bin_strength = bins(subject, finding)
    places, strength = strengths(subject, finding)
    samples = followed(subject, finding)
    numbers |= dict(
        object_area=float(shape.float().mean()),
        receptive_field=share(finding.field, shape),
        strength=share(strength, at(places)),
        bin_strength=share(bin_strength, at((boxes[:, :2] + boxes[:, 2:]) / 2)),
        samples=share(samples.weights.abs(), at(samples.places)),
        region=None if region is None else share(region.mask.float(), shape),
    )
    return numbers


def draw(axes: np.ndarray, subject: Subject, finding: Finding, title: str) -> None:
    """A row of panels, in the order of :data:`COLUMNS`, the last of which may be missing."""
    for panel in axes:
        draw_image(panel, subject)
        draw_node(panel, finding.node)
    axes[0].set_title(f"{title}\n{finding.node.title}", fontsize=8)
    _draw_samples(axes[1], subject, finding)
    _draw_strengths(axes[2], subject, finding)
    shown = draw_field(axes[3], finding)
    axes[3].figure.colorbar(shown, ax=axes[3], fraction=0.046, label=FIELD_UNIT)
    axes[3].set_title("effective receptive field", fontsize=8)
    if len(axes) > 4 and finding.region is not None:
        draw_region(axes[4], subject, finding.region)
        axes[4].set_title(
            f"region: {finding.region.area:.1%} of the image,\nerror {finding.region.error:.3f}",
            fontsize=8,
        )


def _draw_samples(panel: Axes, subject: Subject, finding: Finding) -> None:
    found = followed(subject, finding)
    draw_dots(panel, found.places, found.weights, color="red")
    names = found.layers
    panel.set_title(
        f"samples through {len(names)} layers by mask\nfrom {names[0] if names else 'none'} down",
        fontsize=8,
    )


def _draw_strengths(panel: Axes, subject: Subject, finding: Finding) -> None:
    boxes, bin_strength = bins(subject, finding)
    if len(boxes):
        title, shown = "bins, by strength", draw_bins(panel, boxes, bin_strength)
    else:
        title = "all samples, by strength"
        points, strength = strengths(subject, finding)
        shown = draw_dots(panel, points, None, strength, faintest=0.1)
    panel.figure.colorbar(shown, ax=panel, fraction=0.046, label=STRENGTH_UNIT)
    panel.set_title(title, fontsize=8)


# What a panel consists of; the pages of an explorer use these, too


def extent(subject: Subject) -> tuple[float, float, float, float]:
    """Left, right, lower and upper edge of the image, whose pixels lie at whole numbers."""
    height, width = subject.size
    return -0.5, width - 0.5, height - 0.5, -0.5


def fit(panel: Axes, subject: Subject) -> None:
    """Let a panel end where the image does, whatever was drawn onto it."""
    edges = extent(subject)
    panel.set(xlim=edges[:2], ylim=edges[2:])


def draw_image(panel: Axes, subject: Subject) -> None:
    """The image, in pixels of the model's input."""
    panel.imshow(subject.picture, extent=extent(subject))
    fit(panel, subject)
    panel.set(xticks=[], yticks=[])


def draw_node(panel: Axes, node: Node) -> None:
    """The outline of a node's object, and a cross at its place."""
    if node.shape is not None and 0 < node.shape.float().mean() < 1:
        panel.contour(node.shape.numpy(), [0.5], colors="white", linewidths=0.8)
    panel.plot(*node.place, "+", color="lime", markersize=9, markeredgewidth=1.6)


def draw_dots(
    panel: Axes,
    places: Tensor,
    masks: Tensor | None,
    strength: Tensor | None = None,
    color: str | None = None,
    largest: float = 10.0,
    faintest: float = 1.0,
    **colours: Any,
) -> PathCollection:
    """Samples as dots, those that the node depends on most above the others.

    Args:
        panel: shows an image in pixels of the model's input.
        places: ``(n, 2)`` as (x, y).
        masks: ``(n,)``, areas of the dots; None makes them all alike.
        strength: ``(n,)``, colours of the dots; without it they have `color`.
        color: of all.
        largest: area of the largest dot in square points.
        faintest: opacity of dots without strength, which may be thousands and hide the image.
        colours: `cmap` and `norm` of the strengths, instead of viridis from 0 on.
    """
    size = torch.full((len(places),), 0.4 * largest)
    if masks is not None and len(masks):
        size = largest * (0.1 + 0.9 * masks.abs() / masks.abs().max().clamp(min=1e-12))
    if strength is None:
        return panel.scatter(*places.T.numpy(), s=size.numpy(), c=color, linewidths=0, alpha=0.7)
    order = strength.argsort()
    x, y, size, values = (part.numpy() for part in (*places[order].T, size[order], strength[order]))
    most = float(strength.max()) if len(strength) else 1.0
    alpha = faintest + (1 - faintest) * (values / max(most, 1e-12)) ** 0.5
    shown = panel.scatter(x, y, s=size, c=values, linewidths=0, alpha=alpha)
    shown.set(**{"cmap": "viridis", **colours})
    shown.set_clim(0, most)
    return shown


def draw_bins(panel: Axes, boxes: Tensor, strength: Tensor, **colours: Any) -> LineCollection:
    """Outlines of bins ``(n, 4)``, coloured by strength ``(n,)``; `colours` as in `draw_dots`."""
    order = strength.argsort()
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2).numpy()
    colours = {"cmap": "viridis", "linewidths": 1.1, **colours}
    lines = LineCollection(corners[order], **colours)
    lines.set_array(strength[order].numpy())
    lines.set_clim(0, float(strength.max()) if len(strength) else 1.0)
    return panel.add_collection(lines)


def draw_field(panel: Axes, finding: Finding) -> AxesImage:
    """The effective receptive field over the image."""
    field = finding.field / finding.field.max().clamp(min=1e-30)
    return panel.imshow(field.sqrt().numpy(), cmap="inferno", alpha=0.75, vmin=0, vmax=1)


def draw_region(panel: Axes, subject: Subject, region: SaliencyRegion) -> None:
    """The image where the region keeps it, and grey elsewhere."""
    masked = np.where(region.mask.numpy()[..., None], subject.picture, 110)
    panel.imshow(masked, extent=extent(subject))
