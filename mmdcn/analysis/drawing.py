"""Pictures and numbers of what a node looks at, for the tool and the pages that show them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from .effective import EffectiveSampling, compose
from .saliency import SaliencyRegion
from .subject import Node, Subject

COLUMNS = ("prediction", "samples", "strength", "receptive field", "region")
LEVELS = 3  # layers whose samples are followed


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


def followed(subject: Subject, finding: Finding) -> tuple[Tensor, Tensor]:
    """Where the last windows that the node depends on sample, one followed into the next.

    Returns:
        Locations ``(n, 2)`` as (x, y) in pixels of the input, and products of the masks ``(n,)``.
    """
    levels = [item.sampling for item in finding.layers if item.sampling.is_window][-LEVELS:][::-1]
    if not levels:
        return torch.zeros(0, 2), torch.zeros(0)
    size = subject.inputs.shape[2:]
    height, width = levels[0].locations.shape[1:3]
    x, y = finding.node.place
    column = min(max(int((x + 0.5) * width / size[1]), 0), width - 1)
    row = min(max(int((y + 0.5) * height / size[0]), 0), height - 1)
    points, weights = compose(levels, (row, column))[-1]
    last = dataclasses.replace(levels[-1], locations=points)
    return last.in_image(tuple(size)).cpu(), weights.cpu()


def strengths(subject: Subject, finding: Finding) -> tuple[Tensor, Tensor]:
    """All samples of the windows, and how much the node depends on each.

    Returns:
        Locations ``(n, 2)`` as (x, y) in pixels of the input, and gradients per pixel of the input
        ``(n,)``; those of 0 are left out.
    """
    places, values = [torch.zeros(0, 2)], [torch.zeros(0)]
    for item in finding.layers:
        if item.sampling.is_window:
            strength = (item.total / _stride(subject, item)).norm(dim=-1)
            kept = strength > 0
            places.append(item.sampling.in_image(tuple(subject.inputs.shape[2:]))[kept].cpu())
            values.append(strength[kept].cpu())
    return torch.cat(places), torch.cat(values)


def bins(subject: Subject, finding: Finding) -> tuple[Tensor, Tensor]:
    """Bins of the RoI poolings ``(n, 4)`` in pixels of the input, and their strengths ``(n,)``."""
    boxes, values = [torch.zeros(0, 4)], [torch.zeros(0)]
    for item in finding.layers:
        if not item.sampling.is_window:
            stride = _stride(subject, item)
            start = item.sampling.in_image(tuple(subject.inputs.shape[2:]))
            step = item.sampling.bin_sizes[:, None, None, None] * stride
            boxes.append(torch.cat([start, start + step], -1).flatten(0, -2).cpu())
            values.append((item.total / stride).norm(dim=-1).flatten().cpu())
    return torch.cat(boxes), torch.cat(values)


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
    samples, weights = followed(subject, finding)
    numbers |= dict(
        object_area=float(shape.float().mean()),
        receptive_field=share(finding.field, shape),
        strength=share(strength, at(places)),
        bin_strength=share(bin_strength, at((boxes[:, :2] + boxes[:, 2:]) / 2)),
        samples=share(weights.abs(), at(samples)),
        region=None if region is None else share(region.mask.float(), shape),
    )
    return numbers


def draw(axes: np.ndarray, subject: Subject, finding: Finding, title: str) -> None:
    """A row of panels, in the order of :data:`COLUMNS`, the last of which may be missing."""
    height, width = subject.size
    for panel in axes:
        panel.imshow(subject.picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        panel.set_xlim(-0.5, width - 0.5)
        panel.set_ylim(height - 0.5, -0.5)
        panel.set_xticks([])
        panel.set_yticks([])
        if finding.node.shape is not None:
            panel.contour(finding.node.shape, [0.5], colors="white", linewidths=0.8)
        panel.plot(*finding.node.place, "+", color="lime", markersize=9, markeredgewidth=1.6)
    axes[0].set_title(f"{title}\n{finding.node.title}", fontsize=8)
    _draw_samples(axes[1], subject, finding)
    _draw_strengths(axes[2], subject, finding)
    field = finding.field / finding.field.max().clamp(min=1e-30)
    shown = axes[3].imshow(field.sqrt(), cmap="inferno", alpha=0.75, vmin=0, vmax=1)
    axes[3].figure.colorbar(shown, ax=axes[3], fraction=0.046, label="√(gradient / maximum)")
    axes[3].set_title("effective receptive field", fontsize=8)
    if len(axes) > 4 and finding.region is not None:
        masked = np.where(finding.region.mask[..., None], subject.picture, 110)
        axes[4].imshow(masked, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        axes[4].set_title(
            f"region: {finding.region.area:.1%} of the image,\nerror {finding.region.error:.3f}",
            fontsize=8,
        )


def _draw_samples(panel: Axes, subject: Subject, finding: Finding) -> None:
    points, weights = followed(subject, finding)
    size = weights.abs() / weights.abs().max().clamp(min=1e-12) if len(weights) else weights
    panel.scatter(*points.T, s=1 + 9 * size, c="red", linewidths=0, alpha=0.7)
    names = [x.sampling.layer for x in finding.layers if x.sampling.is_window][-LEVELS:]
    panel.set_title(
        f"samples through {len(names)} layers by mask\nfrom {names[-1] if names else 'none'} down",
        fontsize=8,
    )


def _draw_strengths(panel: Axes, subject: Subject, finding: Finding) -> None:
    boxes, bin_strength = bins(subject, finding)
    if len(boxes):
        title = "bins, by strength"
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2).numpy()
        order = bin_strength.argsort()
        lines = LineCollection(corners[order], cmap="viridis", linewidths=1.1)
        lines.set_array(bin_strength[order].numpy())
        shown = panel.add_collection(lines)
    else:
        title = "all samples, by strength"
        points, strength = strengths(subject, finding)
        order = strength.argsort()
        points, strength = points[order], strength[order]
        shown = panel.scatter(*points.T, s=4, c=strength, cmap="viridis", linewidths=0)
    panel.figure.colorbar(
        shown, ax=panel, fraction=0.046, label="|gradient| per pixel of the input"
    )
    panel.set_title(title, fontsize=8)
