"""Random arguments."""

import torch
from torch import Tensor


def normal(*size: int, std: float = 1.0) -> Tensor:
    """Normal numbers in float64."""
    return std * torch.randn(size, dtype=torch.float64)


def regions(count: int, images: int, height: int, width: int) -> Tensor:
    """``(count, 5)`` regions in and around images of that size."""
    size = torch.tensor([width, height], dtype=torch.float64)
    corners = torch.rand(count, 2, 2, dtype=torch.float64).sort(1).values * 1.2 - 0.1
    index = torch.randint(images, (count, 1)).double()
    return torch.cat([index, (corners * size).flatten(1)], 1)
