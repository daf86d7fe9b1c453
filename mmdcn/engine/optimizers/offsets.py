"""MMEngine's options for the offsets of deformable layers, for those of mmdcn."""

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmdcn import ops
from mmdcn.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Modules in these layers that predict offsets and masks.
PREDICTORS: dict[type[nn.Module], tuple[str, ...]] = {
    ops.DeformConv2dPack: ("conv_offset",),
    ops.ModulatedDeformConv2dPack: ("conv_offset",),
    ops.DCNv3: ("offset", "mask"),
    ops.DCNv3Conv2d: ("offset", "mask"),
    ops.DCNv4: ("offset_mask",),
    ops.DCNv4Conv2d: ("offset_mask",),
    ops.DeformRoIPoolPack: ("offset_fc", "mask_fc"),
    ops.DeformPSRoIPoolPack: ("conv_offset", "conv_mask"),
}


def offset_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters from which mmdcn's layers in a model predict offsets and masks."""
    found = []
    for prefix, layer in model.named_modules():
        predictors = [names for kind, names in PREDICTORS.items() if isinstance(layer, kind)]
        for name, _ in layer.named_parameters():
            if predictors and name.split(".")[0] in predictors[0]:
                found.append(f"{prefix}.{name}".lstrip("."))
    return found


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, whose options for deformable layers also hold for mmdcn's.

    In ``paramwise_cfg``, ``dcn_offset_lr_mult`` scales the learning rate of the layers that predict
    offsets and masks, and ``bias_lr_mult``, ``bias_decay_mult`` and ``flat_decay_mult`` leave their
    biases alone. As for all rules of MMEngine, ``custom_keys`` that match a parameter come first.

    Args: see :class:`mmengine.optim.DefaultOptimWrapperConstructor`.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model, in its wrapper."""
        if self.paramwise_cfg:
            options = self.paramwise_cfg
            keys = dict(options.get("custom_keys") or {})
            rule = dict(lr_mult=options.get("dcn_offset_lr_mult", 1.0))
            names = offset_parameters(getattr(model, "module", model))
            free = [name for name in names if not any(key in name for key in keys)]
            self.paramwise_cfg = dict(options, custom_keys=keys | dict.fromkeys(free, rule))
        return super().__call__(model)
