"""Stem, blocks and levels of :class:`mmdcn.models.backbones.InternImage`.

Attributes have the names of the official models, since they are the keys of their checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdcn.models.backbones.intern_image_settings import Settings
from mmdcn.ops import DCNv3, DCNv4
from mmdcn.ops.modules.layers import build_act_layer, build_norm_layer, is_cpu_inference, linear


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
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_act_layer(settings.act_layer)
        self.fc2 = nn.Linear(hidden, channels, bias=settings.mlp_fc2_bias)
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
        hidden = self.drop(self.act(linear(self.fc1, x)))
        return self.drop(linear(self.fc2, hidden))


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

    is_sharding_unit = True  # for models in shards: its parameters are gathered together

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
