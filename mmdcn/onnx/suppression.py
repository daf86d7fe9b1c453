"""Non-maximum suppression that torch can export, with a result of fixed length."""

from __future__ import annotations

import torch
from onnxscript import opset18 as op
from torch import Tensor

from mmdcn.onnx.pieces import Value, floats, integer, ints, part, size


@torch.library.custom_op("mmdcn_onnx::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Boxes that no better one overlaps too much, best first.

    Args:
        boxes: ``(n, 4)``, as (x1, y1, x2, y2).
        scores: ``(n,)``.
        iou_threshold: A box goes if its intersection over union with a better one is larger.
        most: Length of the result.

    Returns:
        Indices ``(most,)``, int64, -1 at the end where there are fewer.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = scores.argsort(descending=True, stable=True)
    kept = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = torch.maximum(boxes[best, :2], boxes[left, :2])
        high = torch.minimum(boxes[best, 2:], boxes[left, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        left = left[common <= iou_threshold * (areas[best] + areas[left] - common)]
    found = torch.full((most,), -1, dtype=torch.int64, device=boxes.device)
    found[: len(kept)] = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    return found


@suppress.register_fake
def _(boxes, scores, iou_threshold, most):
    return boxes.new_empty(most, dtype=torch.int64)


def translation(boxes: Value, scores: Value, iou_threshold: float, most: int) -> Value:
    """``mmdcn_onnx::suppress`` as ``NonMaxSuppression``, sorted."""
    selected = op.NonMaxSuppression(
        op.Unsqueeze(boxes, ints(0)),
        op.Unsqueeze(scores, ints(0, 1)),
        ints(most),
        floats([iou_threshold]),
    )
    index = part(selected, 2, 1)
    # The operator does not promise an order.
    _, order = op.TopK(op.Gather(scores, index, axis=0), size(index, 0), axis=0)
    index = op.Gather(index, order, axis=0)
    missing = op.Sub(ints(most), size(index, 0))
    return op.Pad(index, op.Concat(ints(0), missing, axis=0), integer(-1))
