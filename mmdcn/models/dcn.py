"""DCN and DCNv2 as convolution layers of OpenMMLab configs: ``dict(type='mmdcn.DCNv2', ...)``."""

from functools import partial

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmdcn.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdcn.registry import MODELS

# The operators know nothing of OpenMMLab, so their modules are registered here, under the names
# that MMCV gives to the same layers.
MODELS.register_module(name="DCN", module=DeformConv2dPack)
MODELS.register_module(name="DCNv2", module=ModulatedDeformConv2dPack)


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


# Early MMDetection checkpoints keep the offset convolution beside the deformable one.
# PyTorch hands a module only the keys below its own prefix, so the layer itself never sees those
# of its former sibling: its parent has to rename them, and the parent is foreign code.
register_module_module_registration_hook(_watch_parent)
