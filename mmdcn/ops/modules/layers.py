"""Layers of channels-last maps; norms and activations between them and channels-first ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import Proxy
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
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or isinstance(x, Proxy)
    return not recorded and x.device.type == "cpu" and not torch.is_grad_enabled()


def check_maps(x: Tensor, channels: int, name: str = "input") -> None:
    """Raise ValueError unless ``x`` is ``(N, H, W, channels)``. Nothing can be asked of a proxy."""
    if not isinstance(x, Proxy) and (x.dim() != 4 or x.shape[3] != channels):
        raise ValueError(
            f"{name}: expected a channels-last map (N, H, W, {channels}), "
            f"got shape {tuple(x.shape)}"
        )


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` for a linear layer and channels-last maps ``(..., W, C)``, up to rounding.

    PyTorch leaves float32 products on CPUs to MKL, which on AMD's has half the speed of oneDNN. So
    inference there calls oneDNN, which PyTorch offers as a convolution only. Each row is an image
    of its own, as one image of one thread would again be left to MKL. Whatever else stands in the
    place of the layer (quantised, adapted, observed by hooks) is called as it is.
    """
    if not (is_cpu_inference(x) and _suits_onednn(layer, x)):
        return layer(x)
    rows = x.reshape(-1, 1, *x.shape[-2:]).permute(0, 3, 1, 2)
    y = F.conv2d(rows, layer.weight[..., None, None], layer.bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], layer.out_features)


def _suits_onednn(layer: nn.Module, x: Tensor) -> bool:
    plain = type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks)
    return (
        plain
        and type(layer.weight) is nn.Parameter
        and x.dtype == layer.weight.dtype == torch.float32
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
