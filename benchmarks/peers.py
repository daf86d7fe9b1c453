"""Everything that runs beside mmdcn: other implementations, and yardsticks of the machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import engines, formulations
from .cases import Arguments, Case


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a case.

    Attributes:
        forward: of the keyword arguments, a tensor.
        trains: whether autograd can go through it.
        same: whether it gives the operator's result; a yardstick does not.
    """

    name: str
    forward: Callable[..., Tensor]
    trains: bool = True
    same: bool = True


def contestants(case: Case, args: Arguments, threads: int) -> list[Contestant]:
    """mmdcn first, then its reference, every importable peer of the operator, the yardsticks."""
    found = [Contestant("mmdcn", case.function), Contestant("reference", case.reference)]
    input = args["input"]
    if input.dtype == torch.float32:
        for name, package, forward in (
            ("mmcv", "mmcv", _mmcv(case.operator, args)),
            ("torchvision", "torchvision", _torchvision(case.operator, args)),
            ("grid_sample", "torch", getattr(formulations, case.operator, None)),
        ):
            if forward is not None and _importable(package):
                found.append(Contestant(name, forward))
        for name, package, build in (
            ("OpenVINO", "openvino", engines.openvino),
            ("ONNX Runtime", "onnxruntime", engines.onnx_runtime),
        ):
            if input.is_cuda or not _importable(package):
                continue
            try:
                engine = build(case.operator, args, threads)
            except Exception as error:  # another version of an engine must not stop the rest
                print(f"{name} cannot build {case.operator}: {error}")
                continue
            if engine is not None:
                found.append(Contestant(name, _without_arguments(engine), trains=False))
    if "weight" in args:
        found.append(Contestant("conv2d", _conv2d, same=False))
    found.append(Contestant("copy", _copy(case, args), trains=False, same=False))
    return found


def _importable(package: str) -> bool:
    if importlib.util.find_spec(package) is None:
        return False
    try:
        importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # torchvision beside another torch, for example
        print(f"{package} is installed but cannot be imported: {error}")
        return False
    return True


def _without_arguments(engine: Callable[[], Tensor]) -> Callable[..., Tensor]:
    return lambda **args: engine()


def _conv2d(*, input, weight, bias, padding, offset=None, mask=None) -> Tensor:
    return F.conv2d(input, weight, bias, padding=padding)


def _copy(case: Case, args: Arguments) -> Callable[..., Tensor]:
    """A copy that reads and writes as many bytes as the tensors of the call have together."""
    with torch.no_grad():
        tensors = [case.function(**args), *(v for v in args.values() if isinstance(v, Tensor))]
    bytes = sum(t.nbytes for t in tensors)
    source = torch.ones(bytes // 8, dtype=torch.float32, device=tensors[0].device)
    target = torch.ones_like(source)
    return lambda **args: target.copy_(source)


def _mmcv(operator: str, args: Arguments) -> Callable[..., Tensor] | None:
    def modulated(*, input, offset, mask, weight, bias, padding):
        from mmcv.ops import modulated_deform_conv2d

        return modulated_deform_conv2d(input, offset, mask, weight, bias, 1, padding)

    def plain(*, input, offset, weight, bias, padding):
        from mmcv.ops import deform_conv2d

        # It knows no bias.
        return (
            deform_conv2d(input, offset, weight, 1, padding, 1, 1, 1, False, 1)
            + bias[:, None, None]
        )

    def align(*, input, rois, output_size, spatial_scale, sampling_ratio):
        from mmcv.ops import roi_align

        return roi_align(input, rois, output_size, spatial_scale, sampling_ratio, "avg", True)

    if operator == "deform_roi_pool":  # its own deformable pooling has no CPU kernel
        return None if "offset" in args else align
    return {"modulated_deform_conv2d": modulated, "deform_conv2d": plain}.get(operator)


def _torchvision(operator: str, args: Arguments) -> Callable[..., Tensor] | None:
    def deform(*, input, offset, weight, bias, padding, mask=None):
        from torchvision.ops import deform_conv2d

        return deform_conv2d(input, offset, weight, bias, padding=padding, mask=mask)

    def align(*, input, rois, output_size, spatial_scale, sampling_ratio):
        from torchvision.ops import roi_align

        return roi_align(input, rois, output_size, spatial_scale, sampling_ratio, aligned=True)

    def position_sensitive(*, input, rois, output_size, spatial_scale):
        from torchvision.ops import ps_roi_pool

        return ps_roi_pool(input, rois, output_size, spatial_scale)

    if operator == "deform_roi_pool":
        return None if "offset" in args else align
    return {
        "modulated_deform_conv2d": deform,
        "deform_conv2d": deform,
        "ps_roi_pool": position_sensitive,
    }.get(operator)
