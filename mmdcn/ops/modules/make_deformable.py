"""Deformable layers in the place of convolutions of any model."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from .conv import DCNv3Conv2d, DCNv4Conv2d
from .deform_conv2d import DeformConv2dPack, ModulatedDeformConv2dPack

# With the options that let a new layer do what the convolution did.
KEEPING = {
    "DCN": (DeformConv2dPack, {}),
    "DCNv2": (ModulatedDeformConv2dPack, {"mask_scale": 2.0}),
}
ANEW = {"DCNv3": DCNv3Conv2d, "DCNv4": DCNv4Conv2d}
TYPES = (*KEEPING, *ANEW)
OTHER_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def make_deformable(
    model: nn.Module,
    layers: str | Callable[[str, nn.Conv2d], bool],
    type: str = "DCNv2",
    **options,
) -> dict[str, nn.Module]:
    """Replace convolutions of a model by deformable layers, in place.

    ``DCN`` and ``DCNv2`` go on with the parameters of the convolution, the same objects under the
    same keys, and add a branch ``conv_offset`` that is zero: the output of the model stays what it
    was, up to rounding, and a checkpoint of the plain model still loads, with nothing missing but
    ``conv_offset``. For that the masks of ``DCNv2`` are ``2 * sigmoid``, which begin at 1.
    ``DCNv3`` and ``DCNv4`` have no such weights; they begin anew, with the geometry of the
    convolution.

    Replace before an optimizer is made, as it would not know the new parameters.

    Args:
        model: Any module that has the convolutions somewhere below.
        layers: A regular expression that matches the whole name of a layer, as ``named_modules()``
            has it, or a function of the name and the convolution. Matches that are no convolutions
            are left alone.
        type: ``"DCN"``, ``"DCNv2"``, ``"DCNv3"`` or ``"DCNv4"``.
        options: Further arguments of the layer: `deform_groups` of all four, `offset_scale` of
            ``DCNv3`` and ``DCNv4``, `mask_scale` of ``DCNv2``.

    Returns:
        The new layers by name. A layer that the model has under several names stays one layer.

    Raises:
        ValueError: `type` is unknown; no convolution is chosen; one that is chosen is transposed,
            has not two dimensions, pads with other values than 0 or unevenly, is of a class with a
            computation of its own, parametrized, hooked, or the model itself; or its channels do
            not fit the options. The model is then as it was.
    """
    if type not in TYPES:
        raise ValueError(f"type: expected one of {', '.join(TYPES)}, got {type!r}")
    chosen = _choose(model, layers)
    new: dict[int, nn.Module] = {}
    for name, conv in chosen.items():
        if id(conv) not in new:
            new[id(conv)] = _replacement(name, conv, type, options)
    for name, conv in chosen.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new[id(conv)])
    return {name: new[id(conv)] for name, conv in chosen.items()}


def _choose(
    model: nn.Module, layers: str | Callable[[str, nn.Conv2d], bool]
) -> dict[str, nn.Conv2d]:
    known = dict(model.named_modules(remove_duplicate=False))
    convolutions = {name: m for name, m in known.items() if isinstance(m, nn.Conv2d)}
    if not isinstance(layers, str):
        chosen = {name: conv for name, conv in convolutions.items() if layers(name, conv)}
    else:
        try:
            pattern = re.compile(layers)
        except re.error as error:
            raise ValueError(f"layers: {layers!r} is no regular expression: {error}") from error
        matches = {name: module for name, module in known.items() if pattern.fullmatch(name)}
        for name, module in matches.items():
            if isinstance(module, OTHER_CONVOLUTIONS):
                raise ValueError(f"{name}: a {_class(module)} cannot be replaced")
        chosen = {name: conv for name, conv in convolutions.items() if name in matches}
    if not chosen:
        names = list(convolutions)
        some = ", ".join(names[:2] + ["..."] * (len(names) > 3) + names[2:][-1:]) or "none"
        what = repr(layers) if isinstance(layers, str) else "the function"
        raise ValueError(f"layers: {what} chooses no convolution; the model's are {some}")
    return chosen


def _replacement(name: str, conv: nn.Conv2d, type: str, options: dict) -> nn.Module:
    _check(name, conv)
    arguments = dict(
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
        padding=_padding(name, conv),
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    layer, defaults = KEEPING[type] if type in KEEPING else (ANEW[type], {})
    try:
        new = layer(**arguments, **(defaults | options))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    new.to(device=conv.weight.device, dtype=conv.weight.dtype)
    if type in KEEPING:
        new.weight, new.bias = conv.weight, conv.bias
    return new.train(conv.training)


def _check(name: str, conv: nn.Conv2d) -> None:
    own = conv.__class__
    if not name:
        raise ValueError(
            "model: it is the convolution itself, which has no place to be replaced in"
        )
    if own.forward is not nn.Conv2d.forward or own._conv_forward is not nn.Conv2d._conv_forward:
        raise ValueError(f"{name}: a {_class(conv)} has a computation of its own")
    if "weight" not in conv._parameters:
        raise ValueError(f"{name}: its weight is parametrized; remove that first")
    if conv._forward_hooks or conv._forward_pre_hooks:
        raise ValueError(f"{name}: it has hooks, which would be lost; remove them first")
    if conv.padding_mode != "zeros":
        raise ValueError(f"{name}: padding_mode has to be 'zeros', got {conv.padding_mode!r}")


def _padding(name: str, conv: nn.Conv2d) -> tuple[int, int]:
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        return conv.padding
    around = [(k - 1) * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    if any(pixels % 2 for pixels in around):
        raise ValueError(
            f"{name}: padding='same' of kernel_size={conv.kernel_size} pads one side more than the "
            "other"
        )
    return tuple(pixels // 2 for pixels in around)


def _class(module: nn.Module) -> str:
    return f"{module.__class__.__module__}.{module.__class__.__name__}"
