"""Error-bounded saliency: the smallest part of an image that a node's response needs.

The idea is that of `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_ (Zhu et al., 2019,
section 2.1): parts of the image are masked as long as the response stays the same up to a small
error. How the smallest region is looked for is this module's own, in the manner of `Fong and
Vedaldi (2017) <https://arxiv.org/abs/1704.03296>`_. Whatever the search finds, the region that is
returned has been checked: with all else masked, the response is within the bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .effective import check_image

# Differences between the response to a masked image and that to the whole one, both flattened.
LOSSES = {
    "relative": lambda masked, whole: (masked - whole).square().sum() / whole.square().sum(),
    "cosine": lambda masked, whole: 1 - F.cosine_similarity(masked, whole, dim=0),
}
Progress = Callable[[int, int], None]


@dataclasses.dataclass
class SaliencyRegion:
    """A region that keeps the response of a node.

    Attributes:
        mask: ``(H, W)``, True where the image is kept.
        error: the loss with all else masked, below the bound.
        area: share of the image.
        cells: ``(h, w)``, the mask by the cells of the grid.
        ordering: which ranking of the cells gave it: ``"optimised"``, ``"gradient"`` or, where
            nothing can be masked, ``"whole"``.
    """

    mask: Tensor
    error: float
    area: float
    cells: Tensor
    ordering: str


def saliency_region(
    model: nn.Module,
    image: Tensor,
    node: Callable[[Any], Tensor],
    *,
    epsilon: float = 0.1,
    loss: str = "relative",
    cell: int = 16,
    baseline: Tensor | float = 0.0,
    steps: int = 60,
    searches: int = 6,
    prune: int = 60,
    progress: Progress | None = None,
) -> SaliencyRegion:
    """Look for the smallest region of an image that gives the same response as the whole.

    Cells of the image are ranked: by soft masks that are optimised for a small area and a small
    error, with the balance of the two found by bisection, and by the gradient of the response. Of
    each ranking the shortest prefix within the bound is kept, cells of the smaller one are dropped
    one by one while the bound holds, and the region that remains is checked once more.

    Args:
        model: in eval mode, called with an image; batch statistics would see the masking.
        image: ``(1, C, H, W)``, normalised as the model wants it.
        node: of the model's output to a tensor of any shape, the response.
        epsilon: the bound on `loss`.
        loss: ``"relative"``: squared error over the squared response; ``"cosine"``: 1 - cosine
            similarity, which ignores the length of the response and is a looser bound.
        cell: side of a cell in pixels.
        baseline: what stands in masked pixels, broadcast to the image; 0 is the mean colour of
            most normalisations.
        steps: of Adam for each balance.
        searches: balances to try.
        prune: at most this many cells are tried one by one at the end.
        progress: called with the number of forward passes so far and the most there can be.

    Raises:
        ValueError: an argument is none of these, or the response to the image is 0 or not finite.
    """
    check_image(image)
    if image.shape[0] != 1:
        raise ValueError(f"image: expected one image, got a batch of {image.shape[0]}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {tuple(LOSSES)}, got {loss!r}")
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected a positive bound, got {epsilon}")
    if cell < 1:
        raise ValueError(f"cell: expected a positive number of pixels, got {cell}")
    for name, value, least in (("steps", steps, 1), ("searches", searches, 0), ("prune", prune, 0)):
        if value < least:
            raise ValueError(f"{name}: expected a number of at least {least}, got {value}")
    search = _Search(model, image.detach(), node, loss, epsilon, cell, baseline)
    search.progress, search.most = progress, (steps + 12) * searches + 12 + prune + 2
    found = search.shortest_prefix(search.by_gradient(), "gradient")
    low, high = -3.0, 2.0  # logarithm of the weight of the area
    for _ in range(searches):
        balance = (low + high) / 2
        ranking, feasible = search.optimise(10**balance, steps)
        found = min(found, search.shortest_prefix(ranking, "optimised"), key=lambda r: r[0].sum())
        low, high = (balance, high) if feasible else (low, balance)
    cells, ordering = found
    cells = search.prune(cells, prune)
    error = search.error(cells)
    if not error < epsilon:  # a model that is not deterministic, for example
        raise RuntimeError(
            f"model: two runs differ; the region had an error < {epsilon}, now {error}"
        )
    mask = search.enlarge(cells)
    return SaliencyRegion(mask, error, mask.float().mean().item(), cells, ordering)


class _Search:
    progress: Progress | None = None
    most = 0

    def __init__(self, model, image, node, loss, epsilon, cell, baseline) -> None:
        self.model, self.image, self.node, self.epsilon = model, image, node, epsilon
        self.loss, self.cell, self.passes = LOSSES[loss], cell, 0
        height, width = image.shape[2:]
        self.grid = -(-height // cell), -(-width // cell)
        self.baseline = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
        with torch.no_grad():
            self.whole = self.response(image)
        if not self.whole.isfinite().all() or not self.whole.any():
            raise ValueError("node: expected a finite response to the image that is not 0")

    def response(self, image: Tensor) -> Tensor:
        self.passes += 1
        if self.progress:
            self.progress(self.passes, max(self.passes, self.most))
        return self.node(self.model(image)).flatten()

    def masked(self, keep: Tensor) -> Tensor:
        """The image with a mask ``(H, W)``."""
        return self.image * keep + self.baseline * (1 - keep)

    def enlarge(self, cells: Tensor) -> Tensor:
        large = cells.repeat_interleave(self.cell, 0).repeat_interleave(self.cell, 1)
        return large[: self.image.shape[2], : self.image.shape[3]]

    @torch.no_grad()
    def error(self, cells: Tensor) -> float:
        keep = self.enlarge(cells).to(self.image.dtype)
        return self.loss(self.response(self.masked(keep)), self.whole).item()

    @torch.enable_grad()
    def by_gradient(self) -> Tensor:
        """Cells by the gradient of half the squared response, summed over their pixels."""
        image = self.image.clone().requires_grad_()
        response = self.response(image)
        (gradient,) = torch.autograd.grad((response * self.whole).sum(), image)
        pixels = gradient.abs().sum(1, keepdim=True)
        ends = [-size % self.cell for size in pixels.shape[2:]]
        pixels = F.pad(pixels, (0, ends[1], 0, ends[0]))
        return F.avg_pool2d(pixels, self.cell)[0, 0]

    @torch.enable_grad()
    def optimise(self, balance: float, steps: int) -> tuple[Tensor, bool]:
        """A soft mask by cells, and whether its error is within the bound."""
        # Half open: an all but open mask has hardly a gradient, a binary one none.
        logits = torch.full(self.grid, 2.0, device=self.image.device, requires_grad=True)
        adam = torch.optim.Adam([logits], lr=0.1)
        for _ in range(steps):
            soft = logits.sigmoid()
            keep = F.interpolate(soft[None, None], scale_factor=self.cell, mode="bilinear")[0, 0]
            keep = keep[: self.image.shape[2], : self.image.shape[3]].to(self.image.dtype)
            error = self.loss(self.response(self.masked(keep)), self.whole)
            adam.zero_grad()
            (error + balance * soft.mean()).backward(inputs=[logits])
            adam.step()
        return logits.detach(), error.item() < self.epsilon

    def shortest_prefix(self, ranking: Tensor, name: str) -> tuple[Tensor, str]:
        """Cells from the highest rank on, as few as bisection finds within the bound."""
        order = ranking.flatten().argsort(descending=True)

        def prefix(length: int) -> Tensor:
            cells = torch.zeros(order.numel(), dtype=torch.bool, device=order.device)
            cells[order[:length]] = True
            return cells.reshape(self.grid)

        too_few, enough = 0, order.numel()
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.error(prefix(middle)) < self.epsilon:
                enough = middle
            else:
                too_few = middle
        return prefix(enough), name if enough < order.numel() else "whole"

    def prune(self, cells: Tensor, most: int) -> Tensor:
        """Drop cells, those with the least gradient first, while the bound holds."""
        rank = self.by_gradient().where(cells, torch.inf).flatten()
        for index in rank.argsort()[: min(most, int(cells.sum()))]:
            fewer = cells.clone()
            fewer.view(-1)[index] = False
            if fewer.any() and self.error(fewer) < self.epsilon:
                cells = fewer
        return cells
