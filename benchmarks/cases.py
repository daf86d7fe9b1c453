"""What is measured: operators, shapes, and the speed that they are expected to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmdcn import ops
from mmdcn.ops import reference

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


def deform_conv(channels: int, height: int, width: int, modulated: bool = True, **options):
    def make() -> Arguments:
        torch.manual_seed(0)
        args = dict(
            input=torch.randn(1, channels, height, width),
            offset=random_offsets(1, 18, height, width),
            mask=torch.rand(1, 9, height, width),
            weight=torch.randn(channels, channels, 3, 3) / (3 * channels**0.5),
            bias=torch.randn(channels),
            padding=1,
        )
        if not modulated:
            del args["mask"]
        return args

    names = ("input", "offset", *["mask"] * modulated, "weight", "bias")
    operator = "modulated_deform_conv2d" if modulated else "deform_conv2d"
    return Case(operator, f"1x{channels}x{height}x{width}, 3x3", make, names, **options)


def dcn(version: int, height: int, width: int, channels: int, groups: int, **options):
    def make() -> Arguments:
        torch.manual_seed(0)
        input = torch.randn(1, height, width, channels)
        offset = random_offsets(1, height, width, groups, 18)
        weight = torch.randn(1, height, width, groups, 9).softmax(-1)
        if version == 3:
            return dict(
                input=input, offset=offset.flatten(3), mask=weight.flatten(3), groups=groups
            )
        return dict(
            input=input, offset_mask=torch.cat([offset, weight], -1).flatten(3), groups=groups
        )

    names = ("input", "offset", "mask") if version == 3 else ("input", "offset_mask")
    name = f"1x{height}x{width}x{channels}, {groups} groups, 3x3"
    return Case(f"dcnv{version}", name, make, names, **options)


def random_rois(count: int, images: int, height: int, width: int) -> Tensor:
    corner = torch.rand(count, 2) * torch.tensor([width, height]) * 0.8
    size = torch.rand(count, 2) * torch.tensor([width, height]) * 0.4 + 8
    index = torch.randint(images, (count, 1)).float()
    return torch.cat([index, corner, corner + size], 1)


def roi_pool(**options) -> Case:
    def make() -> Arguments:
        torch.manual_seed(0)
        rois = random_rois(512, 2, 400, 672)
        input = torch.randn(2, 256, 100, 168)
        return dict(input=input, rois=rois, output_size=7, spatial_scale=0.25, sampling_ratio=2)

    name = "2x256x100x168, 512 RoIs, 7x7, 2x2 samples, no offsets"
    return Case("deform_roi_pool", name, make, ("input",), **options)


def deform_roi_pool(**options) -> Case:
    def make() -> Arguments:
        args = roi_pool().make()
        return {**args, "offset": torch.randn(512, 2, 7, 7), "mask": torch.rand(512, 1, 7, 7)}

    name = "2x256x100x168, 512 RoIs, 7x7, 2x2 samples, offsets and mask"
    return Case("deform_roi_pool", name, make, ("input", "offset", "mask"), **options)


def ps_roi_pool(**options) -> Case:
    def make() -> Arguments:
        torch.manual_seed(0)
        rois = random_rois(300, 1, 608, 1008)
        input = torch.randn(1, 21 * 49, 38, 63)
        offset, mask = torch.randn(300, 2, 7, 7), torch.rand(300, 1, 7, 7)
        return dict(input=input, rois=rois, offset=offset, mask=mask, output_size=7,
                    output_channels=21, group_size=7, spatial_scale=1 / 16)  # fmt: skip

    name = "1x1029x38x63, 300 RoIs, 7x7, 21 classes"
    return Case("deform_ps_roi_pool", name, make, ("input", "offset", "mask"), **options)


def plain_pool(operator: str, **options) -> Case:
    def make() -> Arguments:
        args = ps_roi_pool().make()
        return {name: args[name] for name in ("input", "rois", "output_size", "spatial_scale")}

    return Case(operator, "1x1029x38x63, 300 RoIs, 7x7", make, ("input",), **options)


F, FB = "forward", "forward+backward"


def _conv_targets(mmcv: float, conv: float, mmcv_backward: float) -> dict:
    return {
        (F, "mmcv"): mmcv,
        (F, "conv2d"): 1 / conv,
        (F, "OpenVINO"): 1.4,
        (F, "ONNX Runtime"): 1.4,
        (FB, "mmcv"): mmcv_backward,
        (FB, "conv2d"): 1 / 2.2,
    }


def _dcn_targets(early: bool, openvino: float) -> dict:
    targets = {
        (F, "grid_sample"): 25 if early else 10,
        (FB, "grid_sample"): 20 if early else 8,
        (F, "OpenVINO"): openvino,
    }
    return {**targets, (F, "copy"): 1 / 4} if early else targets


_DCN_SHAPES = [
    dict(height=200, width=320, channels=64, groups=4, targets=_dcn_targets(True, 4), largest=True),
    dict(height=100, width=160, channels=128, groups=8, targets=_dcn_targets(True, 4)),
    dict(height=50, width=80, channels=256, groups=16, targets=_dcn_targets(False, 2.5)),
    dict(height=25, width=40, channels=512, groups=32, targets=_dcn_targets(False, 2.5)),
]

_ALL = [
    deform_conv(128, 100, 168, targets=_conv_targets(8, 1.35, 25), largest=True),
    deform_conv(256, 50, 84, targets=_conv_targets(7, 1.35, 14)),
    deform_conv(512, 25, 42, targets=_conv_targets(4, 1.6, 7)),
    deform_conv(8, 4, 4, targets={(F, "conv2d"): 1 / 3}),
    deform_conv(128, 100, 168, modulated=False, largest=True),
    *(dcn(version, **shape) for version in (3, 4) for shape in _DCN_SHAPES),
    roi_pool(targets={(F, "mmcv"): 10, (FB, "mmcv"): 10, (F, "ONNX Runtime"): 3}, largest=True),
    deform_roi_pool(),
    ps_roi_pool(targets={(F, "reference"): 10, (FB, "reference"): 10}, largest=True),
    plain_pool("ps_roi_pool", largest=True),
    plain_pool("roi_avg_pool", largest=True),
]
CASES = [case for case in _ALL if hasattr(ops, case.operator)]
