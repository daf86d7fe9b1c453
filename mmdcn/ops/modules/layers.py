"""Layers of channels-last maps; norms and activations between them and channels-first ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_LAYERS = ("LN", "BN")
ACT_LAYERS = {"GELU": nn.GELU, "ReLU": nn.ReLU, "SiLU": nn.SiLU}


class ToChannelsFirst(nn.Module):
    """View of ``(N, H, W, C)`` as ``(N, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class ToChannelsLast(nn.Module):
    """View of ``(N, C, H, W)`` as ``(N, H, W, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def is_cpu_inference(x: Tensor) -> bool:
    """Whether a layer of ``x`` runs on a CPU, as it is written here, and keeps nothing."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not recorded


class Linear(nn.Linear):
    """``nn.Linear`` of channels-last maps, ``(..., W, C)``; the same up to rounding.

    PyTorch leaves float32 products on CPUs to MKL, which on AMD's has half the speed of oneDNN. So
    inference there calls oneDNN, whose door is the convolution. Each row is an image of its own,
    as one image of one thread would again be left to MKL.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (is_cpu_inference(x) and self._suits_onednn(x)):
            return super().forward(x)
        rows = x.reshape(-1, 1, *x.shape[-2:]).permute(0, 3, 1, 2)
        y = F.conv2d(rows, self.weight[..., None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)

    def _suits_onednn(self, x: Tensor) -> bool:
        return (
            x.dtype == self.weight.dtype == torch.float32
            and x.dim() > 2
            and x.numel() > 0
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkldnn.is_available()
        )


def build_norm_layer(
    channels: int,
    norm_layer: str = "LN",
    in_format: str = "channels_last",
    out_format: str = "channels_last",
) -> nn.Sequential:
    """A norm over the channels, with the changes of layout that it needs before and after.

    The index of the norm in the result, 0 or 1, is part of published state-dict keys.

    Args:
        channels: Size of the channel axis.
        norm_layer: ``"LN"`` (eps 1e-6) or ``"BN"``.
        in_format, out_format: ``"channels_first"`` or ``"channels_last"``.

    Raises:
        ValueError: `norm_layer` is none of the two.
    """
    if norm_layer not in NORM_LAYERS:
        raise ValueError(f"norm_layer: expected one of {NORM_LAYERS}, got {norm_layer!r}")
    if norm_layer == "LN":
        norm, native = nn.LayerNorm(channels, eps=1e-6), "channels_last"
    else:
        norm, native = nn.BatchNorm2d(channels), "channels_first"
    convert = {"channels_first": ToChannelsFirst, "channels_last": ToChannelsLast}
    layers = [norm]
    if in_format != native:
        layers.insert(0, convert[native]())
    if out_format != native:
        layers.append(convert[out_format]())
    return nn.Sequential(*layers)


def build_act_layer(act_layer: str) -> nn.Module:
    """``"GELU"``, ``"ReLU"`` or ``"SiLU"``; raises ValueError for another name."""
    if act_layer not in ACT_LAYERS:
        raise ValueError(f"act_layer: expected one of {tuple(ACT_LAYERS)}, got {act_layer!r}")
    return ACT_LAYERS[act_layer]()
