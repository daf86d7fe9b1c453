"""What deformable operators are called with while a model runs, and where they sample.

Nothing here knows a layer or a name: calls of operators are observed, so layers of anyone's own are
seen as well, and the positions come from the references of the operators.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import _extension
from ..ops._registration import OPERATORS
from ..ops.deform_roi_pool import deform_roi_pool
from ..ops.reference import aggregation
from ..ops.reference.arguments import conv_out_size, pair
from ..ops.reference.deform_conv2d import sampling_points
from ..ops.reference.deform_ps_roi_pool import at_bins, number_of_classes
from ..ops.reference.deform_ps_roi_pool import bin_corners as ps_bin_corners
from ..ops.reference.deform_roi_pool import bin_corners
from ..ops.reference.rois import split_rois


@dataclasses.dataclass
class Sampling:
    """Where one call of a deformable operator samples.

    Attributes:
        layer: name of the module that made the call, as in ``named_modules``.
        operator: name of the operator, for example ``"deform_conv2d"``.
        map_size: ``(H, W)`` of the map that is sampled.
        locations: positions of a window's taps, ``(N, Ho, Wo, G, P, 2)``, or the upper left corners
            of a RoI's bins, ``(R, classes, ph, pw, 2)``; (x, y) in pixels of the map, of which 0 is
            the centre of the first.
        weights: the factor of each sample, ``locations.shape[:-1]``; None where there is none.
        bin_sizes: sizes of a RoI's bins ``(R, 2)`` as (x, y); None for windows.
        probe: added to the locations in the graph: the gradient of anything with respect to it is
            that with respect to the locations. None unless asked for.
    """

    layer: str
    operator: str
    map_size: tuple[int, int]
    locations: Tensor
    weights: Tensor | None
    bin_sizes: Tensor | None = None
    probe: Tensor | None = None

    @property
    def is_window(self) -> bool:
        return self.bin_sizes is None

    def in_image(self, image_size: tuple[int, int]) -> Tensor:
        """The locations in pixels of an image ``(H, W)`` that the map covers."""
        return map_to_image(self.locations, self.map_size, image_size)


def map_to_image(points: Tensor, map_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """Positions ``(..., 2)`` as (x, y) in pixels of a map, in those of an image of the same scene.

    Corners fall on corners: pixel ``u`` of a map with stride ``s`` lies at ``(u + 1/2) s - 1/2``.
    """
    scale = points.new_tensor([image_size[1] / map_size[1], image_size[0] / map_size[0]])
    return (points + 0.5) * scale - 0.5


def record(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    probes: bool = False,
    freeze: bool = False,
    shift: float = 0.0,
    plain: Collection[str] = (),
) -> tuple[Any, list[Sampling]]:
    """Run a model and observe its deformable operators.

    Args:
        model: holds the layers whose names are recorded.
        run: calls the model, for example ``lambda: model(image)``.
        probes: put a :attr:`Sampling.probe` into the graph of each call.
        freeze: hold the offsets and masks at their values, so that no gradient passes through what
            predicts them.
        shift: value of the probes, in pixels of the map.
        plain: names of layers to treat as deformable ones without offsets, see :func:`is_plain`.
            Their output is the same up to rounding.

    Returns:
        What `run` returns, and the calls in their order.

    Raises:
        RuntimeError: there are no native operators for the device of the model, whose calls alone
            can be observed.
        ValueError: `plain` names something else.
    """
    devices = {parameter.device.type for parameter in model.parameters()} or {"cpu"}
    for missing in filter(None, map(_extension.why_missing, sorted(devices))):
        raise RuntimeError(f"the analysis needs the native operators, which are missing: {missing}")
    modules = dict(model.named_modules())
    for name in plain:
        module = modules.get(name)
        if not is_plain(module):
            raise ValueError(
                "plain: expected names of nn.Conv2d with zero padding in numbers, or of averaging "
                f"RoIAlign layers with aligned=True, got {name!r}, "
                f"which is {type(module).__name__ if module else 'no module'}"
            )
    kinds = {n: "conv2d" if isinstance(modules[n], nn.Conv2d) else "roi_align" for n in plain}
    observer = _Observer(probes, freeze, shift, kinds)
    with observer.watch(modules), observer:
        result = run()
    return result, observer.found


def is_plain(module: nn.Module | None) -> bool:
    """Whether a layer is a deformable one without offsets.

    It is if it is an ``nn.Conv2d`` with zero padding in numbers, or the RoIAlign of MMCV or
    torchvision with ``aligned=True``, which averages.
    """
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    # By name, as neither package is needed here.
    is_align = type(module).__name__ == "RoIAlign" and module.aligned
    return is_align and getattr(module, "pool_mode", "avg") == "avg"


def _align(module: nn.Module, input: Tensor, rois: Tensor) -> Tensor:
    """What a RoIAlign layer does, by the operator that is observed."""
    return deform_roi_pool(
        input,
        rois,
        output_size=module.output_size,
        spatial_scale=module.spatial_scale,
        sampling_ratio=max(module.sampling_ratio, 0),
    )


class _Observer(TorchFunctionMode):
    def __init__(self, probes: bool, freeze: bool, shift: float, plain: dict[str, str]) -> None:
        super().__init__()
        self.probes, self.freeze, self.shift, self.plain = probes, freeze, shift, plain
        self.found: list[Sampling] = []
        self.running: list[str] = []
        self.names = {operator.forward: name for name, operator in OPERATORS.items()}

    @contextlib.contextmanager
    def watch(self, modules: dict[str, nn.Module]) -> Iterator[None]:
        """Keep the names of the modules that are running, and let RoIAlign run what is seen."""
        handles = []
        aligning = [modules[n] for n in self.plain if not isinstance(modules[n], nn.Conv2d)]
        for module in aligning:
            module.forward = partial(_align, module)
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in aligning:
                del module.forward

    def _enter(self, name: str, *_: Any) -> None:
        self.running.append(name)

    def _leave(self, *_: Any) -> None:
        self.running.pop()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        layer = self.running[-1] if self.running else ""
        name = self.names.get(func)
        if name in _GEOMETRY:
            given = dict(zip(OPERATORS[name].names, args, strict=True)) | (kwargs or {})
            return func(*self._observed(layer, name, given).values())
        if func is nn.functional.conv2d and layer in self.plain:
            return self._observed_plain(layer, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _observed(self, layer: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
        if self.freeze:
            for argument in ("offset", "mask", "offset_mask"):
                if given.get(argument) is not None:
                    given[argument] = given[argument].detach()
        sampling, add = _GEOMETRY[name](given)
        sampling.layer, sampling.operator = layer, self.plain.get(layer, name)
        if self.probes and torch.is_grad_enabled():
            sampling.probe = torch.full_like(sampling.locations, self.shift, requires_grad=True)
            given = given | add(sampling.probe)
        self.found.append(sampling)
        return given

    def _observed_plain(
        self, layer, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1
    ) -> Tensor:
        kernel = weight.shape[2:]
        stride, padding, dilation = (
            pair(value, name)
            for value, name in ((stride, "stride"), (padding, "padding"), (dilation, "dilation"))
        )
        size = [
            conv_out_size(input.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i])
            for i in (0, 1)
        ]
        offset = input.new_zeros(input.shape[0], 2 * math.prod(kernel), *size)
        arguments = (input, offset, None, weight, bias, stride, padding, dilation, groups, 1)
        given = dict(zip(OPERATORS["deform_conv2d"].names, arguments, strict=True))
        given = self._observed(layer, "deform_conv2d", given)
        return OPERATORS["deform_conv2d"].forward(*given.values())


# For each operator: its locations, and how to add something to them through its arguments.
_Geometry = tuple[Sampling, Callable[[Tensor], dict[str, Tensor]]]


def _deform_conv2d(given: dict[str, Any]) -> _Geometry:
    offset, mask, groups = given["offset"], given["mask"], given["deform_groups"]
    kernel = given["weight"].shape[2:]
    window = (kernel, given["stride"], given["padding"], given["dilation"], groups)
    locations = sampling_points(_exact(offset), *window)
    weights = None
    if mask is not None:
        weights = _exact(mask).unflatten(1, (groups, -1)).permute(0, 3, 4, 1, 2)

    def add(shift: Tensor) -> dict[str, Tensor]:
        shift = shift.flip(-1).permute(0, 3, 4, 5, 1, 2)
        return {"offset": offset + shift.reshape(offset.shape).to(offset.dtype)}

    return Sampling("", "", tuple(given["input"].shape[2:]), locations, weights), add


def _dcnv3(given: dict[str, Any]) -> _Geometry:
    offset, groups = given["offset"], given["groups"]
    weights = _exact(given["mask"]).unflatten(-1, (groups, -1))
    if given["mask_softmax"]:
        weights = weights.softmax(-1)
    locations = _aggregation_points(given, _exact(offset).unflatten(-1, (groups, -1, 2)))

    def add(shift: Tensor) -> dict[str, Tensor]:
        shift = shift.flatten(3) * _inverse(shift.new_tensor(given["offset_scale"]))
        return {"offset": offset + shift.to(offset.dtype)}

    return Sampling("", "", tuple(given["input"].shape[1:3]), locations, weights), add


def _dcnv4(given: dict[str, Any]) -> _Geometry:
    both, groups = given["offset_mask"], given["groups"]
    taps = math.prod(given["kernel_size"]) - bool(given["remove_center"])
    used = _exact(both[..., : 3 * groups * taps]).unflatten(-1, (groups, 3 * taps))
    offset, weights = used[..., : 2 * taps].unflatten(-1, (taps, 2)), used[..., 2 * taps :]
    locations = _aggregation_points(given, offset)

    def add(shift: Tensor) -> dict[str, Tensor]:
        shift = shift.flatten(4) * _inverse(shift.new_tensor(given["offset_scale"]))
        shift = nn.functional.pad(shift, (0, taps)).flatten(3)
        shift = nn.functional.pad(shift, (0, both.shape[-1] - shift.shape[-1]))
        return {"offset_mask": both + shift.to(both.dtype)}

    return Sampling("", "", tuple(given["input"].shape[1:3]), locations, weights), add


def _aggregation_points(given: dict[str, Any], offset: Tensor) -> Tensor:
    names = ("kernel_size", "stride", "padding", "dilation", "offset_scale", "remove_center")
    return aggregation.sampling_points(offset, *(given[name] for name in names))


def _deform_roi_pool(given: dict[str, Any]) -> _Geometry:
    input, offset, (ph, pw) = given["input"], given["offset"], given["output_size"]
    _, corners, finite = split_rois(input, given["rois"])
    place = (given["output_size"], given["spatial_scale"], given["gamma"])
    start, size, _ = bin_corners(corners, finite, offset, *place)
    mask = given["mask"]
    bins = size / size.new_tensor([pw, ph])
    weights = None if mask is None else _exact(mask)
    sampling = Sampling("", "", tuple(input.shape[2:]), start[:, None].detach(), weights, bins)
    unit = given["gamma"] * size

    def add(shift: Tensor) -> dict[str, Tensor]:
        step = _inverse(unit)[:, :, None, None] * shift[:, 0].permute(0, 3, 1, 2)
        zeros = offset if offset is not None else input.new_zeros(step.shape)
        return {"offset": zeros + step.to(zeros.dtype)}

    return sampling, add


def _deform_ps_roi_pool(given: dict[str, Any]) -> _Geometry:
    input, offset, mask = given["input"], given["offset"], given["mask"]
    output_size, part_size = given["output_size"], given["part_size"]
    classes = number_of_classes(offset, mask)
    _, corners, finite = split_rois(input, given["rois"])
    place = (output_size, part_size, given["spatial_scale"], given["trans_std"])
    start, bins, _ = ps_bin_corners(corners, finite, offset, classes, *place)
    weights = None if mask is None else at_bins(_exact(mask), output_size, part_size)
    sampling = Sampling("", "", tuple(input.shape[2:]), start.detach(), weights, bins)
    unit = given["trans_std"] * bins * bins.new_tensor([output_size[1], output_size[0]])

    def add(shift: Tensor) -> dict[str, Tensor]:
        if list(part_size) != list(output_size):
            raise ValueError(
                f"part_size: bins that share an offset {tuple(part_size)} cannot be told apart; "
                f"expected output_size {tuple(output_size)}"
            )
        step = _inverse(unit)[:, None, :, None, None] * shift.permute(0, 1, 4, 2, 3)
        step = step.flatten(1, 2)
        zeros = offset if offset is not None else input.new_zeros(step.shape)
        return {"offset": zeros + step.to(zeros.dtype)}

    return sampling, add


def _exact(values: Tensor) -> Tensor:
    values = values.detach()
    return values if values.dtype == torch.float64 else values.float()


def _inverse(unit: Tensor) -> Tensor:
    """``1 / unit``, and 0 where offsets have no effect."""
    return torch.where(unit == 0, 0.0, 1 / unit)


_GEOMETRY = {
    "deform_conv2d": _deform_conv2d,
    "dcnv3": _dcnv3,
    "dcnv4": _dcnv4,
    "deform_roi_pool": _deform_roi_pool,
    "deform_ps_roi_pool": _deform_ps_roi_pool,
}
