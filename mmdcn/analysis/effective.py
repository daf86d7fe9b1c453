"""What a node of a network depends on: pixels of the image, and where its layers sample.

The effective receptive field (`Luo et al., 2016 <https://arxiv.org/abs/1701.04128>`_) and the
effective sampling and bin locations of `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_
(Zhu et al., 2019, section 2.1). A *node* is a function of the output of a model to a scalar tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .recording import Sampling, map_to_image, record

Node = Callable[[Any], Tensor]


def receptive_field(model: nn.Module, image: Tensor, node: Node, signs: str = "both") -> Tensor:
    """Effective receptive field: the gradient of a node with respect to each pixel.

    The model should be in eval mode, or batch statistics carry the gradient everywhere.

    Args:
        model: called with the image.
        image: ``(N, C, H, W)``.
        node: of the model's output to a scalar.
        signs: ``"both"`` sums absolute values over the colours; ``"positive"`` sums positive values
            alone, as the scripts that follow RepLKNet's do.

    Returns:
        ``(N, H, W)``, not negative.

    Raises:
        ValueError: `image` or `signs` is none of these, or the node is no scalar.
    """
    if signs not in ("both", "positive"):
        raise ValueError(f"signs: expected 'both' or 'positive', got {signs!r}")
    check_image(image)
    with torch.enable_grad():
        image = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(_scalar(node(model(image))), image)
    return (gradient.abs() if signs == "both" else gradient.clamp(min=0)).sum(1)


def mean_receptive_field(
    model: nn.Module, images: Iterable[Tensor], node: Node, signs: str = "both"
) -> tuple[Tensor, int]:
    """Mean of :func:`receptive_field` over batches of images of one size.

    Returns:
        ``(H, W)`` and the number of images; those with values or gradients that are not finite are
        left out.

    Raises:
        ValueError: there is no image, or none with finite values.
    """
    total, count = 0.0, 0
    for batch in images:
        for image, field in zip(batch, receptive_field(model, batch, node, signs), strict=True):
            if image.isfinite().all() and field.isfinite().all():
                total, count = total + field, count + 1
    if not count:
        raise ValueError("images: expected at least one with finite values, got none")
    return total / count, count


def contribution_squares(
    field: Tensor, thresholds: Sequence[float] = (0.2, 0.3, 0.5, 0.99), log: bool = True
) -> dict[float, tuple[int, float]]:
    """The smallest square around the centre that holds more than a share of a receptive field.

    Args:
        field: ``(H, W)``, not negative.
        thresholds: shares of the sum.
        log: of ``log10(1 + field)``, as RepLKNet's users know it, not of the field itself.

    Returns:
        For each threshold the side of the square in pixels, and its area as a share of the map's.

    Raises:
        ValueError: the field is zero everywhere, or no square holds more than a threshold.
    """
    values = torch.log10(field.double() + 1) if log else field.double()
    height, width = values.shape
    total = values.sum()
    if not total > 0:
        raise ValueError("field: expected a positive sum, got none")
    squares = {}
    for threshold in thresholds:
        for half in range(1, height // 2 + 1):
            rows = slice(height // 2 - half, height // 2 + half + 1)
            columns = slice(max(width // 2 - half, 0), width // 2 + half + 1)
            if values[rows, columns].sum() / total > threshold:
                side = 2 * half + 1
                squares[threshold] = side, side**2 / (height * width)
                break
        else:
            raise ValueError(f"thresholds: no square holds more than {threshold} of the field")
    return squares


@dataclasses.dataclass
class EffectiveSampling:
    """Where a layer samples, and how much a node depends on it.

    Attributes:
        sampling: the locations and masks.
        total: gradient of the node with respect to the locations, ``(..., 2)`` as (x, y), per pixel
            of the map. Layers above adapt their own offsets and masks to what they get.
        direct: the same with all predicted offsets and masks held; None unless wanted.
    """

    sampling: Sampling
    total: Tensor
    direct: Tensor | None

    def strength(self, kind: str = "total") -> Tensor:
        """Length of the gradient, ``locations.shape[:-1]``."""
        return getattr(self, kind).norm(dim=-1)


def effective_sampling(
    model: nn.Module,
    image: Tensor,
    node: Node,
    plain: Collection[str] = (),
    layers: Collection[str] | None = None,
    direct: bool = True,
) -> list[EffectiveSampling]:
    """Effective sampling and bin locations of all deformable layers that a node depends on.

    The bilinear samples have a kink at whole pixels, where a plain convolution always samples: the
    mean of the slopes on both sides is given there.

    Args:
        model, image, node: as in :func:`receptive_field`.
        plain: names of layers that are treated as deformable ones without offsets, as in `record`.
        layers: names of the layers that are wanted; None means all.
        direct: whether the direct gradients are wanted, too, which takes as long again.

    Returns:
        In the order of the calls; layers that the node does not depend on have zero gradients.

    Raises:
        ValueError: as :func:`mmdcn.analysis.record`, or a wanted layer is not deformable.
        RuntimeError: there are no native operators.
    """
    check_image(image)

    def gradients(freeze: bool, shift: float) -> tuple[list[Sampling], list[Tensor]]:
        with torch.enable_grad():
            output, found = record(
                model,
                lambda: model(image),
                probes=True,
                freeze=freeze,
                shift=shift,
                plain=plain,
            )
            if layers is not None:
                found = [sampling for sampling in found if sampling.layer in layers]
                if lacking := set(layers) - {sampling.layer for sampling in found}:
                    raise ValueError(
                        f"layers: {sorted(lacking)} are not deformable, or did not run"
                    )
            if not found:
                return [], []
            probes = [sampling.probe for sampling in found]
            scalar = _scalar(node(output))
            return found, torch.autograd.grad(
                scalar, probes, allow_unused=True, materialize_grads=True
            )

    found, total = gradients(False, 0.0)
    whole = [sampling.locations == sampling.locations.round() for sampling in found]
    with_kinks = any(where.any() for where in whole)

    def smoothed(freeze: bool, values: Sequence[Tensor]) -> Sequence[Tensor]:
        return _mean_where(whole, values, gradients(freeze, -_STEP)[1]) if with_kinks else values

    total = smoothed(False, total)
    held = smoothed(True, gradients(True, 0.0)[1]) if direct else [None] * len(found)
    return [EffectiveSampling(*parts) for parts in zip(found, total, held, strict=True)]


_STEP = 2.0**-10  # pixels: from a whole one into the cell before it


def _mean_where(where: list[Tensor], first: Sequence[Tensor], second: Sequence[Tensor]):
    parts = zip(where, first, second, strict=True)
    return [torch.where(chosen, (a + b) / 2, a) for chosen, a, b in parts]


@dataclasses.dataclass
class Windows:
    """Windows of one layer that an output pixel of a layer above is made of.

    Attributes:
        cells: ``(n, 2)``, the output pixels of the windows as (x, y).
        points: ``(n, G, P, 2)``, where their taps sample, as (x, y) in pixels of the map.
        weights: ``(n, G, P)``, products of the masks on the way.
    """

    cells: Tensor
    points: Tensor
    weights: Tensor


def trace(levels: Sequence[Sampling], target: tuple[int, int], image: int = 0) -> list[Windows]:
    """The windows that an output pixel is made of, through several layers one above the other.

    Each sample is rounded to the nearest pixel of the layer below (halves to even), whose window
    follows; samples outside of its output are dropped. All groups of a layer are followed.

    Args:
        levels: calls on windows, the topmost first; each one works on what the next one gives, if
            through layers that keep positions.
        target: (row, column) of an output pixel of the topmost.
        image: index in the batch.

    Returns:
        The windows of each level.

    Raises:
        ValueError: a level is a RoI pooling, or the target lies outside of the map.
    """
    results: list[Windows] = []
    device = levels[0].locations.device if levels else None
    cells = torch.tensor([[target[1], target[0]]], device=device)
    weights = torch.ones(1, device=device)
    for number, level in enumerate(levels):
        if not level.is_window:
            raise ValueError(f"levels: expected windows, got {level.operator} of {level.layer!r}")
        height, width = level.locations.shape[1:3]
        if number:
            above = results[-1].points.flatten(0, 2)
            points = map_to_image(above, levels[number - 1].map_size, (height, width))
            cells = points.round().long()
        inside = ((cells >= 0) & (cells < cells.new_tensor([width, height]))).all(1)
        if not number and not inside.all():
            raise ValueError(f"target: expected a pixel of {height}x{width}, got {target}")
        cells, weights = cells[inside], weights[inside]
        points = level.locations[image, cells[:, 1], cells[:, 0]]
        factors = points.new_ones(points.shape[:-1])
        if level.weights is not None:
            factors = level.weights[image, cells[:, 1], cells[:, 0]]
        results.append(Windows(cells, points, weights[:, None, None] * factors))
        weights = results[-1].weights.flatten()
    return results


def compose(
    levels: Sequence[Sampling], target: tuple[int, int], image: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """What an output pixel samples through several layers, one above the other.

    Args:
        levels, target, image: as in :func:`trace`, which also gives the windows.

    Returns:
        For each level the locations ``(n, 2)`` as (x, y) in pixels of its input, and the product of
        the masks on the way ``(n,)``.

    Raises:
        ValueError: as :func:`trace`.
    """
    traced = trace(levels, target, image)
    return [(found.points.flatten(0, 2), found.weights.flatten()) for found in traced]


def check_image(image: Tensor) -> None:
    if image.dim() != 4 or not image.is_floating_point():
        raise ValueError(
            f"image: expected floating-point (N, C, H, W), got {image.dtype} {tuple(image.shape)}"
        )


def _scalar(value: Tensor) -> Tensor:
    if value.numel() != 1:
        raise ValueError(f"node: expected a scalar, got shape {tuple(value.shape)}")
    return value.reshape(())
