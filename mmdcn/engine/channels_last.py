"""The memory format in which convolutions of images are quickest."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdcn.engine.wrappers import unwrapped
from mmdcn.registry import HOOKS


def to_channels_last(module: nn.Module, args: tuple) -> tuple:
    return tuple(
        arg.contiguous(memory_format=torch.channels_last)
        if isinstance(arg, Tensor) and arg.ndim == 4
        else arg
        for arg in args
    )


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Run a detector or segmentor with images and weights in ``torch.channels_last``.

    The results stay the same up to rounding. Convolutions, batch normalisation and mmdcn's
    operators pass the format on from layer to layer and need no copies of it; on CPUs, and on GPUs
    in mixed precision, they take less time.

    Raises:
        TypeError: The model has no ``backbone``.
    """

    def before_run(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        if not hasattr(model, "backbone"):
            raise TypeError(
                f"ChannelsLastHook: expected a model with a backbone, got {type(model).__name__}"
            )
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(to_channels_last)
