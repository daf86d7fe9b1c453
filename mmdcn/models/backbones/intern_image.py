"""InternImage and FlashInternImage.

`InternImage <https://arxiv.org/abs/2211.05778>`_ (Wang et al., CVPR 2023) and its form with DCNv4,
`Efficient Deformable ConvNets <https://arxiv.org/abs/2401.06197>`_ (Xiong et al., CVPR 2024).
State-dict keys are those of the official repositories (OpenGVLab/InternImage, OpenGVLab/DCNv4).
Feature maps are (N, H, W, C) from the end of the stem to the end of the last level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdcn.models.backbones.intern_image_archs import FLASH_INTERN_IMAGE, INTERN_IMAGE
from mmdcn.models.pretrained import load_backbone_weights
from mmdcn.ops.modules import DCNv3, DCNv4
from mmdcn.ops.modules.layers import Linear, build_act_layer, build_norm_layer, is_cpu_inference
from mmdcn.registry import MODELS

CLASSIFIER_HEADS = (
    "conv_head",
    "head",
    "dcnv3_head_x4",
    "dcnv3_head_x3",
    "clip_projector",
    "fc_norm",
)


@dataclass(frozen=True)
class Settings:
    """Structure of a backbone, with the official argument names and defaults."""

    core_op: str = "DCNv3"  # or "DCNv4"
    channels: int = 64  # of the first level; doubled at each further one
    depths: tuple[int, ...] = (3, 4, 18, 5)  # blocks of each level
    groups: tuple[int, ...] = (3, 6, 12, 24)  # of the operator, in each level
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0  # dropout after the stem and in the MLPs
    drop_path_rate: float = 0.2  # stochastic depth, of the last block if linear
    drop_path_type: str = "linear"  # or "uniform"
    act_layer: str = "GELU"
    norm_layer: str = "LN"  # of stem, downsampling and operator; the blocks' norms are always LN
    layer_scale: float | None = None  # initial value of the learnt factors of each branch
    offset_scale: float = 1.0
    post_norm: bool = False  # normalise a branch's output instead of its input
    res_post_norm: bool = False  # normalise both; without effect with post_norm or layer_scale
    dw_kernel_size: int | None = None
    level2_post_norm: bool = False  # further norms in the third level, after these blocks
    level2_post_norm_block_ids: tuple[int, ...] | None = None
    center_feature_scale: bool = False
    remove_center: bool = False  # drop the middle tap of the operator's kernel
    dcn_output_bias: bool = True  # DCNv4 only
    mlp_fc2_bias: bool = True
    use_dcn_v4_op: bool = False  # official choice between two kernels of one result; no effect

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or len(self.groups) != 4:
            raise ValueError(
                f"depths and groups: expected 4 numbers each, got {self.depths} and {self.groups}"
            )
        if self.core_op not in ("DCNv3", "DCNv4"):
            raise ValueError(f"core_op: expected 'DCNv3' or 'DCNv4', got {self.core_op!r}")
        if self.drop_path_type not in ("linear", "uniform"):
            raise ValueError(
                f"drop_path_type: expected 'linear' or 'uniform', got {self.drop_path_type!r}"
            )
        ids = self.level2_post_norm_block_ids
        if self.level2_post_norm and not (ids and all(0 <= i < self.depths[2] for i in ids)):
            raise ValueError(
                "level2_post_norm_block_ids: expected indices of blocks of the third level "
                f"(0 to {self.depths[2] - 1}), got {ids}"
            )

    def drop_path_rates(self) -> list[float]:
        """Rate of every block, in order over all levels."""
        count = sum(self.depths)
        if self.drop_path_type == "uniform":
            return [self.drop_path_rate] * count
        return [self.drop_path_rate * i / max(count - 1, 1) for i in range(count)]


class DropPath(nn.Module):
    """Stochastic depth: drops whole samples of a residual branch while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.empty(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        keep.bernoulli_(1 - self.rate).div_(1 - self.rate)
        return x * keep

    def extra_repr(self) -> str:
        return f"{self.rate:.4f}"


class StemLayer(nn.Module):
    """Two convolutions of stride 2: (N, 3, H, W) -> (N, H / 4, W / 4, C)."""

    def __init__(self, channels: int, act_layer: str, norm_layer: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels // 2, 3, stride=2, padding=1)
        self.norm1 = build_norm_layer(channels // 2, norm_layer, "channels_first", "channels_first")
        self.act = build_act_layer(act_layer)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = build_norm_layer(channels, norm_layer, "channels_first", "channels_last")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class DownsampleLayer(nn.Module):
    """A convolution of stride 2: (N, H, W, C) -> (N, H / 2, W / 2, 2 C)."""

    def __init__(self, channels: int, norm_layer: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = build_norm_layer(2 * channels, norm_layer, "channels_first", "channels_last")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class MLPLayer(nn.Module):
    """Two linear layers per pixel: (N, H, W, C) -> (N, H, W, C)."""

    tile = 2**21  # hidden values that are computed at a time in inference on CPUs

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        hidden = int(channels * settings.mlp_ratio)
        self.fc1 = Linear(channels, hidden)
        self.act = build_act_layer(settings.act_layer)
        self.fc2 = Linear(hidden, channels, bias=settings.mlp_fc2_bias)
        self.drop = nn.Dropout(settings.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        if not is_cpu_inference(x):
            return self._forward(x)
        # Hidden values of a few rows stay in the caches; those of a large map are memory that the
        # system first has to provide, again in each block.
        rows = x.flatten(0, -3)
        at_once = max(1, self.tile // (x.shape[-2] * self.fc1.out_features))
        if at_once >= len(rows):
            return self._forward(x)
        return torch.cat([self._forward(part) for part in rows.split(at_once)]).view_as(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


def build_core_op(channels: int, group: int, settings: Settings) -> nn.Module:
    """The deformable layer of a block."""
    common = dict(
        channels=channels,
        group=group,
        offset_scale=settings.offset_scale,
        dw_kernel_size=settings.dw_kernel_size,
        remove_center=settings.remove_center,
    )
    if settings.core_op == "DCNv4":
        # As in the official model, which does not hand the other settings on either.
        return DCNv4(**common, output_bias=settings.dcn_output_bias)
    return DCNv3(
        **common,
        act_layer=settings.act_layer,
        norm_layer=settings.norm_layer,
        center_feature_scale=settings.center_feature_scale,
    )


class InternImageLayer(nn.Module):
    """A block: the deformable layer and an MLP, each a residual branch."""

    def __init__(
        self, channels: int, group: int, drop_path: float, with_cp: bool, settings: Settings
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.post_norm = settings.post_norm
        self.layer_scale = settings.layer_scale is not None
        self.use_res_post_norm = (
            settings.res_post_norm and not settings.post_norm and not self.layer_scale
        )
        self.norm1 = build_norm_layer(channels)
        self.dcn = build_core_op(channels, group, settings)
        self.drop_path = DropPath(drop_path)
        self.norm2 = build_norm_layer(channels)
        self.mlp = MLPLayer(channels, settings)
        if self.layer_scale:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(settings.layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(settings.layer_scale)))
        if settings.res_post_norm:
            self.res_post_norm1 = build_norm_layer(channels)
            self.res_post_norm2 = build_norm_layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self._add_branch(self._add_branch(x, self.dcn, "1"), self.mlp, "2")

    def _add_branch(self, x: Tensor, layer: nn.Module, number: str) -> Tensor:
        norm = getattr(self, f"norm{number}")
        branch = norm(layer(x)) if self.post_norm else layer(norm(x))
        if self.use_res_post_norm:
            branch = getattr(self, f"res_post_norm{number}")(branch)
        branch = self.drop_path(branch)
        if self.layer_scale:
            return torch.addcmul(x, getattr(self, f"gamma{number}"), branch)
        return x + branch


class InternImageBlock(nn.Module):
    """A level: blocks of one resolution, then the downsampling to the next."""

    def __init__(
        self, level: int, drop_path: list[float], with_cp: bool, settings: Settings
    ) -> None:
        super().__init__()
        channels = settings.channels * 2**level
        self.blocks = nn.ModuleList(
            InternImageLayer(channels, settings.groups[level], rate, with_cp, settings)
            for rate in drop_path
        )
        self.norm = None
        if not settings.post_norm or settings.center_feature_scale:
            self.norm = build_norm_layer(channels)
        self.post_norm_after: dict[int, int] = {}  # block -> index in post_norms
        if settings.level2_post_norm and level == 2:
            ids = settings.level2_post_norm_block_ids
            self.post_norm_after = {block: index for index, block in enumerate(ids)}
            self.post_norms = nn.ModuleList(build_norm_layer(channels) for _ in ids)
        self.downsample = DownsampleLayer(channels, settings.norm_layer) if level < 3 else None

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_after:
                x = self.post_norms[self.post_norm_after[index]](x)
        return x if self.norm is None else self.norm(x)


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
    may_be_unexpected: tuple[str, ...] = CLASSIFIER_HEADS

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
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
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
