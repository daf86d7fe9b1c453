"""Floating-point operations of a detector or segmentor, by torch's counter.

Operators of mmdcn count by their registered formulas, convolutions and matrix products by torch's;
norms, activations, resizing and pooling do not count. An operation is an addition or a
multiplication. Half of a total is therefore the number of multiply-adds, which most papers call
FLOPs, and exactly what InternImage's papers count: the multiply-adds of convolutions and linear
layers, and 5 for every output value and tap of DCNv3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

BOXES, MASKS = 1000, 100  # regions of a two-stage detector, as MMDetection counts them


def count_flops(model: BaseModel, height: int, width: int) -> dict[str, int]:
    """Operations of one prediction for one image.

    A model on the meta device is counted without computing anything and without memory. Models that
    look at values, as those with deformable attention do, have to be on a real device; what counts
    is not computed there either, its results are taken to be zero.

    Args:
        model: A detector of MMDetection or a segmentor of MMSegmentation.
        height, width: Size of the image.

    Returns:
        Operations by part of the model: ``backbone``, ``neck`` and so on.

    Raises:
        ValueError: `height` or `width` is not positive.
        RuntimeError, NotImplementedError: The model looks at values and is on the meta device.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height, width: expected a positive size, got {height}x{width}")
    model.eval()
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    with torch.no_grad():
        if hasattr(model, "roi_head"):
            return _count_two_stage(model, image)
        if hasattr(model, "encode_decode"):
            return _count_segmentor(model, image)
        return _count_children(model, image)


class _SkipWhatCounts(TorchDispatchMode):
    """Zeros of the right shape in the place of the results of expensive operations."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            return func(*args, **kwargs)
        tensor = next(arg for arg in args if isinstance(arg, Tensor))
        if tensor.is_meta:
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
        return tree_map_only(
            Tensor, lambda t: torch.zeros_like(t, device=tensor.device), func(*args, **kwargs)
        )


def _measure(function: Callable, *args) -> tuple[Any, int]:
    with _SkipWhatCounts(), FlopCounterMode(display=False) as counter:
        result = function(*args)
    return result, counter.get_total_flops()


def _count_two_stage(model: BaseModel, image: Tensor) -> dict[str, int]:
    """The regions do not depend on the image here, so that no value is looked at."""
    counts = {}
    features, counts["backbone"] = _measure(model.backbone, image)
    if model.with_neck:
        features, counts["neck"] = _measure(model.neck, features)
    if model.with_rpn:
        _, counts["rpn_head"] = _measure(model.rpn_head, features)
    if hasattr(model.roi_head.bbox_head, "maps"):  # R-FCN: convolutions first, then regions
        head, x = model.roi_head.bbox_head, features[model.roi_head.level]
        rois = image.new_zeros(BOXES, 5)
        _, counts["bbox_head"] = _measure(lambda: head(head.maps(x), rois))
        return counts
    for name, regions in (("bbox", BOXES), ("mask", MASKS)):
        heads = _stages(getattr(model.roi_head, f"{name}_head", None))
        extractors = _stages(getattr(model.roi_head, f"{name}_roi_extractor", None))
        for head, extractor in zip(heads, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            pooled = image.new_zeros(regions, extractor.out_channels, *size)
            _, count = _measure(head, pooled)
            counts[f"{name}_head"] = counts.get(f"{name}_head", 0) + count
    return counts


def _stages(module: nn.Module | None) -> list[nn.Module]:
    if module is None:
        return []
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _meta(image: Tensor) -> dict[str, tuple[int, int]]:
    size = tuple(image.shape[2:])
    return dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)


def _count_segmentor(model: BaseModel, image: Tensor) -> dict[str, int]:
    _, total = _measure(model.encode_decode, image, [_meta(image)])
    _, backbone = _measure(model.backbone, image)
    return dict(backbone=backbone, decode_head=total - backbone)


def _count_children(model: BaseModel, image: Tensor) -> dict[str, int]:
    with _SkipWhatCounts(), FlopCounterMode(display=False) as counter:
        model(image, [BaseDataElement(metainfo=_meta(image))], mode="tensor")
    by_module = counter.get_flop_counts()
    counts = {}
    for name, _ in model.named_children():
        if operations := sum(by_module.get(f"{type(model).__name__}.{name}", {}).values()):
            counts[name] = operations
    if other := counter.get_total_flops() - sum(counts.values()):
        counts["other"] = other
    return counts
