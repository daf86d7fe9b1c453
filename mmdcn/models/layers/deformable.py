"""Deformable layers in any model of a config."""

from __future__ import annotations

from torch import nn

from mmdcn.ops import make_deformable
from mmdcn.registry import MODELS


@MODELS.register_module(name="Deformable")
def deformable(model: dict, layers: str, layer_type: str = "DCNv2", **options) -> nn.Module:
    """Build a model, and replace convolutions in it by deformable layers.

    As it returns the model itself, keys stay as they are, and what loads a checkpoint later, such
    as ``init_cfg=dict(type="Pretrained", ...)``, finds them::

        backbone=dict(
            type="mmdcn.Deformable",
            model=dict(type="RegNet", ...),
            layers=r"layer[234]\\..*conv2",
            layer_type="DCNv2",
        )

    Args:
        model: Config of the model, or of a part of one.
        layers: A regular expression for the names of layers in that model or part, as in
            :func:`mmdcn.ops.make_deformable`.
        layer_type: ``"DCN"``, ``"DCNv2"``, ``"DCNv3"`` or ``"DCNv4"``.
        options: Further arguments of the layers.

    Returns:
        The model.

    Raises:
        ValueError: As in :func:`mmdcn.ops.make_deformable`.
    """
    built = MODELS.build(model)
    make_deformable(built, layers, layer_type, **options)
    return built
