"""Panels of the operators: calls with the options that a panel is about."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmdcn import ops

from .panel import CENTRE, SIZE, Panel


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
