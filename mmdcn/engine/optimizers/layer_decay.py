"""Layer-wise learning rate decay, by the rules of InternImage's official recipes."""

import logging
from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmdcn.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Outside the backbone, what still learns at the rate of the stem: level embeddings of DINO, and
# what the decode head of Mask2Former adds to its transformer.
FIRST_DEPTH = (
    "level_embed",
    *(
        f"decode_head.{name}"
        for name in ("mask_embed", "cls_embed", "level_embed", "query_embed", "query_feat")
    ),
)
NO_DECAY = ("relative_position", "norm", "sampling_offsets")


def note_dimensions(model: nn.Module) -> None:
    """Keep the number of dimensions of each parameter, before sharding flattens it."""
    for parameter in model.parameters():
        parameter.dimensions = parameter.ndim


def is_offset(name: str) -> bool:
    """Whether a parameter predicts sampling positions, as `offset_lr_scale` understands it.

    That is deformable attention and DCNv4; the offsets of DCNv3 are not meant.
    """
    return (
        "sampling_offsets" in name
        or "reference_points" in name
        or ("offset_mask" in name and "offset_mask_dw" not in name)
    )


def block_depth(backbone: nn.Module) -> Callable[[str], tuple[int, int]]:
    """Depths for a backbone without ``get_layer_depth``: the position of a parameter's block.

    A block is an outermost module with submodules that sits in an ``nn.Sequential`` or
    ``nn.ModuleList``: a residual block of a ResNet, a stage of a Swin Transformer. What stands
    before the first block has depth 0, what stands behind the last one has that of the heads.
    """
    blocks: list[str] = []
    for name, module in backbone.named_modules():
        parent = backbone.get_submodule(name.rpartition(".")[0])
        in_sequence = isinstance(parent, (nn.Sequential, nn.ModuleList))
        outermost = not any(name.startswith(f"{block}.") for block in blocks)
        if in_sequence and outermost and any(module.children()):
            blocks.append(name)
    if not blocks:
        raise ValueError(
            f"{type(backbone).__name__} has neither a method get_layer_depth nor blocks in "
            "nn.Sequential or nn.ModuleList: layer-wise learning rates need one of them"
        )
    last, seen = len(blocks) + 1, 0
    depths = {}
    for name, _ in backbone.named_parameters():
        index = next((i for i, block in enumerate(blocks, 1) if name.startswith(f"{block}.")), None)
        seen = max(seen, index or 0)
        depths[name] = index or (last if seen else 0)
    return lambda name: (depths[name], last + 1)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall from the heads down to the stem of the backbone.

    A parameter of depth d out of D gets ``lr * layer_decay_rate ** (D - 1 - d)``. The depths of
    ``model.backbone`` come from its method ``get_layer_depth(param_name)``, as MMPretrain's
    backbones and :class:`mmdcn.models.backbones.InternImage` have it, or else from
    :func:`block_depth`. Everything outside the backbone has the highest depth, except for the
    level embeddings of DINO and the queries and prediction layers of Mask2Former, which have
    depth 0. Biases, 1-d parameters, norms and ``sampling_offsets`` have no weight decay.

    Args:
        optim_wrapper_cfg: As in MMEngine, with ``lr`` and ``weight_decay`` of the optimizer.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], and optionally ``offset_lr_scale``, a factor
            on the learning rate of layers that predict sampling positions (see
            :func:`is_offset`).

    Raises:
        ValueError: `paramwise_cfg` has another key or a value out of range, or the optimizer no
            ``lr`` or ``weight_decay``.
    """

    def _validate_cfg(self) -> None:
        known = {"layer_decay_rate", "offset_lr_scale"}
        cfg = self.paramwise_cfg
        if "layer_decay_rate" not in cfg or set(cfg) - known:
            raise ValueError(
                "paramwise_cfg: expected layer_decay_rate and optionally offset_lr_scale, got "
                f"{', '.join(cfg) or 'nothing'}"
            )
        if not 0 < cfg["layer_decay_rate"] <= 1:
            raise ValueError(
                f"layer_decay_rate: expected a number in (0, 1], got {cfg['layer_decay_rate']}"
            )
        if self.base_lr is None or self.base_wd is None:
            raise ValueError("optimizer: expected lr and weight_decay to be given")

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append a group for every learning rate and weight decay that occurs."""
        rate = self.paramwise_cfg["layer_decay_rate"]
        offset_scale = self.paramwise_cfg.get("offset_lr_scale", 1.0)
        depth_of = self.depths(module)
        groups: dict[tuple, dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            depth, count = depth_of(name)
            scale = rate ** (count - 1 - depth)
            if self.is_offset(name):
                scale *= offset_scale
            no_decay = (
                getattr(parameter, "dimensions", parameter.ndim) == 1
                or name.endswith(".bias")
                or any(key in name for key in NO_DECAY)
            )
            weight_decay = 0.0 if no_decay else self.base_wd
            group = groups.setdefault(
                (scale, weight_decay),
                dict(
                    params=[],
                    lr=self.base_lr * scale,
                    lr_scale=scale,
                    weight_decay=weight_decay,
                ),
            )
            group["params"].append(parameter)
            print_log(
                f"{name}: lr {group['lr']:.3g}, weight decay {weight_decay:g}",
                logger="current",
                level=logging.DEBUG,
            )
        params.extend(groups[key] for key in sorted(groups))

    @staticmethod
    def is_offset(name: str) -> bool:
        """Whether `offset_lr_scale` is for a parameter of this name."""
        return is_offset(name)

    def depths(self, model: nn.Module) -> Callable[[str], tuple[int, int]]:
        """A function of the name of a parameter: its depth, and the number of depths."""
        backbone = getattr(model, "backbone", None)
        if backbone is None:
            raise ValueError(f"{type(model).__name__} has no backbone with layers to tell apart")
        prefix = "backbone."
        in_backbone = getattr(backbone, "get_layer_depth", None) or block_depth(backbone)
        _, count = in_backbone(next(name for name, _ in backbone.named_parameters()))

        def depth(name: str) -> tuple[int, int]:
            if name.startswith(prefix):
                return in_backbone(name.removeprefix(prefix))
            return (0 if name.startswith(FIRST_DEPTH) else count - 1), count

        return depth


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ClassifierLayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """The same by the rules of InternImage's official classifiers.

    The last block has the rate of what comes after it: the heads, the last norm and the further
    norms of the third level. The stem has that of the first block, and the norm and downsampling
    at the end of a level that of the first block of the next. ``offset_lr_scale`` is for the
    offsets of DCNv3, the offsets and masks of DCNv4, and the gate of the centre feature.

    Arguments and errors as in the base class.
    """

    @staticmethod
    def is_offset(name: str) -> bool:
        """Whether the official ``DCN_LR_MUL`` is for a parameter of this name."""
        return "offset" in name or "center_feature_scale_proj" in name

    def depths(self, model: nn.Module) -> Callable[[str], tuple[int, int]]:
        """As in the base class; without a depth for the stem and one for the heads."""
        detector_depth = super().depths(model)

        def depth(name: str) -> tuple[int, int]:
            index, count = detector_depth(name)
            count -= 2
            after = not name.startswith("backbone.") or name.startswith("backbone.levels.3.norm")
            if after or ".post_norms." in name:
                return count - 1, count
            return max(index - 1, 0), count

        return depth
