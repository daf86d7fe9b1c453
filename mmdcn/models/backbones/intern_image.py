"""InternImage and FlashInternImage.

`InternImage <https://arxiv.org/abs/2211.05778>`_ (Wang et al., CVPR 2023) and its form with DCNv4,
`Efficient Deformable ConvNets <https://arxiv.org/abs/2401.06197>`_ (Xiong et al., CVPR 2024).
State-dict keys are those of the official repositories (OpenGVLab/InternImage, OpenGVLab/DCNv4).
Feature maps are (N, H, W, C) from the end of the stem to the end of the last level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdcn.models.backbones.intern_image_blocks import InternImageBlock, StemLayer
from mmdcn.models.backbones.intern_image_settings import (
    FLASH_INTERN_IMAGE,
    INTERN_IMAGE,
    Settings,
)
from mmdcn.models.backbones.pretrained import load_backbone_weights
from mmdcn.ops import DCNv3, DCNv4
from mmdcn.registry import MODELS


def initialize_linear_layers(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and zero biases, in all of its linear layers."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@MODELS.register_module()
class InternImage(BaseModule):
    """InternImage: a hierarchical backbone of DCNv3 blocks.

    Args:
        arch: ``"tiny"``, ``"small"``, ``"base"``, ``"large"``, ``"xlarge"``, ``"huge"`` or
            ``"giant"``, with the settings of the official detection and segmentation models; a
            dict of settings; or None for the official defaults.
        out_indices: Levels whose outputs are returned, 0 to 3 for strides 4 to 32.
        frozen_stages: This many levels, from the first, do not train and stay in evaluation mode.
            The stem is never frozen, as in the official code.
        with_cp: Recompute each block in the backward pass, to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes an official ImageNet file or
            a detector's checkpoint, as path or URL. Keys or shapes that do not fit are an error;
            only the classifier's head may be left out, and ``gamma1``, ``gamma2`` be missing.
        settings: Any field of :class:`Settings`, in place of that of `arch`.

    Raises:
        ValueError, TypeError: A setting is unknown or has a wrong value.
    """

    archs = INTERN_IMAGE
    checkpoint_entries: tuple[str, ...] = ("state_dict", "model")
    # Tiny classifiers have no factors, and detectors start them at 1.
    may_be_missing: tuple[str, ...] = ("gamma1", "gamma2")
    # The classifiers' heads.
    may_be_unexpected: tuple[str, ...] = (
        "conv_head",
        "head",
        "dcnv3_head_x4",
        "dcnv3_head_x3",
        "clip_projector",
        "fc_norm",
    )

    def __init__(
        self,
        arch: str | dict | None = None,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        **settings,
    ) -> None:
        super().__init__(init_cfg)
        self.settings = self._settings(arch, settings)
        if not 0 < len(out_indices) == len({*out_indices} & {0, 1, 2, 3}):
            raise ValueError(f"out_indices: expected levels out of 0 to 3, got {out_indices}")
        if not -1 <= frozen_stages <= 4:
            raise ValueError(f"frozen_stages: expected -1 to 4, got {frozen_stages}")
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        s = self.settings
        self.patch_embed = StemLayer(s.channels, s.act_layer, s.norm_layer)
        # The official model with DCNv4 has this dropout, too, and never applies it.
        self.pos_drop = nn.Dropout(s.drop_rate if s.core_op == "DCNv3" else 0.0)
        rates = iter(s.drop_path_rates())
        self.levels = nn.ModuleList(
            InternImageBlock(level, [next(rates) for _ in range(depth)], with_cp, s)
            for level, depth in enumerate(s.depths)
        )
        self._reset_parameters()
        self._freeze_stages()

    @classmethod
    def _settings(cls, arch: str | dict | None, overrides: dict) -> Settings:
        if isinstance(arch, str):
            if arch not in cls.archs:
                raise ValueError(
                    f"arch: expected one of {', '.join(cls.archs)} or a dict, got {arch!r}"
                )
            arch = cls.archs[arch]
        values = {**cls.archs["default"], **(arch or {}), **overrides}
        known = [field.name for field in fields(Settings)]
        if unknown := sorted(set(values) - set(known)):
            raise TypeError(
                f"{cls.__name__} has no argument {', '.join(unknown)}; settings are "
                f"{', '.join(known)}"
            )
        for name in ("depths", "groups", "level2_post_norm_block_ids"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return Settings(**values)

    def _reset_parameters(self) -> None:
        """Truncated normal linear layers, and the deformable layers by their own rules."""
        initialize_linear_layers(self)
        for module in self.modules():
            if isinstance(module, (DCNv3, DCNv4)):
                module.init_weights()

    def init_weights(self) -> None:
        """Load `init_cfg`'s checkpoint. Without one, the initial values of the constructor stay."""
        if self.init_cfg is None or self.is_init:
            return
        if self.init_cfg["type"] != "Pretrained":
            super().init_weights()
            return
        load_backbone_weights(
            self,
            self.init_cfg["checkpoint"],
            self.checkpoint_entries,
            self.may_be_missing,
            self.may_be_unexpected,
        )
        self._is_init = True

    def _freeze_stages(self) -> None:
        for level in self.levels[: max(self.frozen_stages, 0)]:
            level.eval()
            level.requires_grad_(False)

    def train(self, mode: bool = True) -> InternImage:
        super().train(mode)
        self._freeze_stages()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(N, 3, H, W)`` -> one ``(N, C * 2**i, H / 2**(i + 2), W / 2**(i + 2))`` per level i."""
        outputs = self.forward_levels(self.forward_stem(x))
        return tuple(
            output.permute(0, 3, 1, 2).contiguous()
            for index, output in enumerate(outputs)
            if index in self.out_indices
        )

    def forward_stem(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` -> ``(N, H / 4, W / 4, C)``."""
        # Convolutions of channels-last images need no change of layout at the stem's norms.
        x = x.contiguous(memory_format=torch.channels_last)
        return self.pos_drop(self.patch_embed(x))

    def forward_levels(self, x: Tensor, added: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Output of the stem -> outputs of all levels, channels last.

        Args:
            x: ``(N, H / 4, W / 4, C)``.
            added: What to add to the input of each level.
        """
        outputs = []
        for index, level in enumerate(self.levels):
            x = level(x if added is None else x + added[index])
            outputs.append(x)
            if level.downsample is not None:
                x = level.downsample(x)
        return outputs

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates, by the official rule.

        Args:
            param_name: Name of the parameter.
            prefix: What stands before this module's own names in `param_name`.

        Returns:
            Depth, from 0 for the stem up, and the number of depths. The last depth belongs to
            what comes after the backbone.
        """
        depths = self.settings.depths
        first = [1, *(1 + total for total in accumulate(depths))]  # of each level
        last = sum(depths) + 1
        parts = param_name.removeprefix(prefix).split(".")
        if parts[0] == "patch_embed":
            return 0, last + 1
        if parts[0] != "levels":
            return last, last + 1
        level = int(parts[1])
        if parts[2] in ("blocks", "post_norms"):
            # post_norms.k counts like block k of its level, although it comes much later
            return first[level] + int(parts[3]), last + 1
        # norm and downsample go with the next level, and the last norm with its own level
        return first[min(level + 1, 3)], last + 1


@MODELS.register_module()
class FlashInternImage(InternImage):
    """FlashInternImage: InternImage with DCNv4. Arguments as there; ``arch`` is ``"tiny"``,
    ``"small"``, ``"base"`` or ``"large"``."""

    archs = FLASH_INTERN_IMAGE
    checkpoint_entries = ("state_dict", "model_ema", "model")
