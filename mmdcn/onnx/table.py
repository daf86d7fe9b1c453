"""The translation of every operator for ``torch.onnx.export``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmdcn import ops  # noqa: F401 - registers the operators
from mmdcn.onnx import aggregation, deform_conv2d, regions, suppression


def translation_table(standard_ops: bool = False) -> dict[Callable, Callable]:
    """What ``torch.onnx.export`` needs to know about mmdcn's operators.

    ::

        torch.onnx.export(
            model, (image,), "model.onnx", opset_version=20,
            custom_translation_table=translation_table(),
        )

    ``deform_conv2d`` and ``modulated_deform_conv2d`` become ``DeformConv``, which needs opset 19 or
    later; ``deform_roi_pool`` without offsets becomes ``RoiAlign``; the others become
    ``GridSample`` or ``Gather`` and arithmetic. Models are in single precision. Batch, height,
    width and number of RoIs may be dynamic.

    Args:
        standard_ops: Write the deformable convolutions as ``GridSample`` and ``Conv``, for runtimes
            without ``DeformConv``.

    Returns:
        For ``custom_translation_table``. A translation raises ValueError for arguments that it
        cannot express.
    """
    convolution = (
        deform_conv2d.in_standard_operators if standard_ops else deform_conv2d.deform_conv2d
    )
    operators = torch.ops.mmdcn
    return {
        operators.deform_conv2d.default: convolution,
        operators.dcnv3.default: aggregation.dcnv3,
        operators.dcnv4.default: aggregation.dcnv4,
        operators.deform_roi_pool.default: regions.deform_roi_pool,
        operators.deform_ps_roi_pool.default: regions.deform_ps_roi_pool,
        operators.ps_roi_pool.default: regions.ps_roi_pool,
        operators.roi_avg_pool.default: regions.roi_avg_pool,
        torch.ops.mmdcn_onnx.suppress.default: suppression.translation,
    }
