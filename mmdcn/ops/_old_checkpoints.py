"""Loading of checkpoints in which the offset convolution stands beside the deformable one."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from .modules.deform_conv2d import DeformConv2dPack, ModulatedDeformConv2dPack


def _rename_old_offset_keys(
    name: str, module: nn.Module, state_dict: dict, prefix: str, *_
) -> None:
    """Rename ``conv2_offset.*`` to ``conv2.conv_offset.*`` for the child ``conv2`` of `module`."""
    for leaf in ("weight", "bias"):
        old, new = f"{prefix}{name}_offset.{leaf}", f"{prefix}{name}.conv_offset.{leaf}"
        if old in state_dict and new not in state_dict:
            state_dict[new] = state_dict.pop(old)


def _watch_parent(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if isinstance(submodule, (DeformConv2dPack, ModulatedDeformConv2dPack)):
        module.register_load_state_dict_pre_hook(partial(_rename_old_offset_keys, name))


# PyTorch hands a module only the keys below its own prefix, so the layer itself never sees those of
# its former sibling: its parent has to rename them, and the parent is foreign code.
register_module_module_registration_hook(_watch_parent)
