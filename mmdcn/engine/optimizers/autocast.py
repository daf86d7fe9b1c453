"""Mixed precision in bfloat16, also on CPUs, where MMEngine's does not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmdcn.registry import OPTIM_WRAPPERS


def to_float32(value: Any) -> Any:
    """`value` with all floating-point tensors in its tuples, lists and dicts as float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(to_float32(item) for item in value)
    if isinstance(value, dict):
        return {key: to_float32(item) for key, item in value.items()}
    return value


def guard_float32_parts(model: nn.Module) -> None:
    """Give float32 to MMCV's compiled operators, which know no bfloat16.

    These are the pooling of regions, and the suppression of boxes that a head proposes.
    """
    for module in model.modules():
        poolings = getattr(module, "roi_layers", ())
        if any(type(layer).__module__.startswith("mmcv.") for layer in poolings):
            module.register_forward_pre_hook(lambda _, args: to_float32(args))
        if hasattr(module, "predict_by_feat"):
            module.register_forward_hook(lambda _, args, output: to_float32(output))


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """MMEngine's optimizer wrapper with autocast to bfloat16, which needs no scaling of the loss.

    Weights and gradients stay float32. Arguments as in :class:`mmengine.optim.OptimWrapper`.
    """

    _guarded: nn.Module | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        if self._guarded is not model:
            guard_float32_parts(model)
            self._guarded = model
        device_type = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
