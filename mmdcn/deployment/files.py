"""ONNX files of networks: written as a whole, with what a program needs to use them."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from mmdcn.engine.errors import UsageError
from mmdcn.onnx import translation_table

LARGEST = 2**31 - 1  # bytes of a file in ONNX's format; more go into a file beside it


def to_onnx(
    network: nn.Module,
    image: Tensor,
    dynamic: Sequence[int] = (),
    opset: int = 20,
    standard_ops: bool = False,
) -> onnx.ModelProto:
    """Export a network.

    Args:
        network: With ``outputs``, the names of what it returns.
        image: An example, ``(N, 3, H, W)``.
        dynamic: Axes of the image that may have other lengths later; those of the example have to
            be larger than 1.
        opset: Version of ONNX's operators.
        standard_ops: As in :func:`mmdcn.onnx.translation_table`.

    Raises:
        UsageError: An operator of the network has no translation, or height or width is to be
            dynamic and a layer pools to a number of cells, which the exporter would write for the
            size of the example.
    """
    if {2, 3} & set(dynamic):
        _check_pooling(network)
    axes = {axis: Dim.AUTO for axis in dynamic}
    # It logs which functions of torchvision it does without.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (image,),
                input_names=["input"],
                output_names=list(network.outputs),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=(axes,) if axes else None,
                custom_translation_table=translation_table(standard_ops),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UsageError(f"the export failed: {_reason(error)}") from error
    finally:
        logger.setLevel(level)
    return program.model_proto


def _check_pooling(network: nn.Module) -> None:
    for name, layer in network.named_modules():
        if not isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            continue
        cells = layer.output_size
        if any(n not in (1, None) for n in (cells if isinstance(cells, tuple) else [cells])):
            raise UsageError(
                f"--dynamic: {name} pools to {cells} cells, which can be exported for one size of "
                "the image only"
            )


def _reason(error: BaseException) -> str:
    """What the exporter raised first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return next((line for line in text.splitlines() if line), type(error).__name__)


def save(model: onnx.ModelProto, out: str | Path, about: dict) -> None:
    """Write a model, with properties that say what it is.

    Args:
        model: What to write.
        out: The file. Weights of more than 2 GB lie beside it, under the name with ``.data``.
        about: Values that JSON has, by name.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for key, value in about.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder, out.name)
        outside = model.ByteSize() > LARGEST
        options = dict(save_as_external_data=True, location=f"{out.name}.data") if outside else {}
        onnx.save(model, written, **options)
        # The weights first: a model is never there without them.
        for file in sorted(Path(folder).iterdir(), key=lambda path: path == written):
            os.replace(file, out.parent / file.name)
