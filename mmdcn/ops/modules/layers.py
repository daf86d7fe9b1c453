"""Norms and activations between channels-first and channels-last tensors."""

from __future__ import annotations

from torch import Tensor, nn

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
