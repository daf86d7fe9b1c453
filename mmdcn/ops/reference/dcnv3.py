"""Reference of dcnv3."""

from __future__ import annotations

from torch import Tensor

from .aggregation import aggregate, check_window, window_pairs
from .arguments import IntPair, check_like, check_shape
from .autocast import cast_once
from .sampling import compute_dtype

__all__ = ["dcnv3"]


@cast_once
def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
    mask_softmax: bool = False,
) -> Tensor:
    """See :func:`mmdcn.ops.dcnv3`."""
    window = window_pairs(kernel_size, stride, padding, dilation)
    options = (*window, groups, offset_scale, remove_center)
    output_shape(input, offset, mask, *options, mask_softmax)
    dtype = compute_dtype(input.dtype)
    taps = mask.shape[-1] // groups
    offset = offset.to(dtype).unflatten(-1, (groups, taps, 2))
    mask = mask.to(dtype).unflatten(-1, (groups, taps))
    if mask_softmax:
        mask = mask.softmax(-1)
    return aggregate(input, offset, mask, *window, offset_scale, remove_center)


def output_shape(
    input, offset, mask, kernel_size, stride, padding, dilation, groups, offset_scale,
    remove_center, mask_softmax,
) -> tuple[int, ...]:  # fmt: skip
    """Shape of the output; raises ValueError for arguments that do not fit."""
    size, taps = check_window(
        input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
    )
    for tensor, name, per_tap in ((offset, "offset", 2), (mask, "mask", 1)):
        check_like(tensor, name, input, "input")
        check_shape(tensor, name, (*size, per_tap * groups * taps))
    return *size, input.shape[3]
