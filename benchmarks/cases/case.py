"""One call of an operator to measure, and what cases are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmdcn import ops
from mmdcn.ops import reference

F, FB = "forward", "forward+backward"
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        make: arguments of the public function, float32.
        differentiable: names of the arguments with gradients.
        targets: expected speed in float32 with 2 threads: (pass, peer) -> time of the peer
            divided by the time of mmdcn.
        largest: the case that also shows scaling with threads and bfloat16.
    """

    operator: str
    name: str
    make: Callable[[], Arguments]
    differentiable: tuple[str, ...]
    targets: dict[tuple[str, str], float] = field(default_factory=dict)
    largest: bool = False

    @property
    def function(self) -> Callable:
        return getattr(ops, self.operator)

    @property
    def reference(self) -> Callable:
        return getattr(reference, self.operator)


def to_dtype(args: Arguments, dtype: torch.dtype) -> Arguments:
    """All floating-point tensors but RoIs, which stay in float32, as ``dtype``."""
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and name != "rois" else value
        for name, value in args.items()
    }


def to_device(args: Arguments, device: str) -> Arguments:
    """All tensors on ``device``."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}


def random_offsets(*shape: int) -> Tensor:
    """Normal, but a little away from whole numbers, where the derivative of bilinear sampling
    jumps and each implementation's rounding would decide on the side."""
    offsets = torch.randn(shape)
    return offsets.floor() + offsets.frac().abs().clamp(0.01, 0.99)


def random_rois(count: int, images: int, height: int, width: int) -> Tensor:
    corner = torch.rand(count, 2) * torch.tensor([width, height]) * 0.8
    size = torch.rand(count, 2) * torch.tensor([width, height]) * 0.4 + 8
    index = torch.randint(images, (count, 1)).float()
    return torch.cat([index, corner, corner + size], 1)
