"""Reference of dcnv4."""

from __future__ import annotations

from torch import Tensor

from .aggregation import aggregate, check_window, window_pairs
from .arguments import IntPair, check_dim, check_like, check_shape
from .autocast import cast_once
from .sampling import compute_dtype

__all__ = ["dcnv4"]


@cast_once
def dcnv4(
    input: Tensor,
    offset_mask: Tensor,
    kernel_size: IntPair = 3,
    stride: IntPair = 1,
    padding: IntPair = 1,
    dilation: IntPair = 1,
    groups: int = 4,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> Tensor:
    """See :func:`mmdcn.ops.dcnv4`."""
    window = window_pairs(kernel_size, stride, padding, dilation)
    output_shape(input, offset_mask, *window, groups, offset_scale, remove_center)
    (kh, kw), dtype = window[0], compute_dtype(input.dtype)
    taps = kh * kw - remove_center
    used = offset_mask[..., : 3 * groups * taps].to(dtype).unflatten(-1, (groups, 3 * taps))
    offset = used[..., : 2 * taps].unflatten(-1, (taps, 2))
    return aggregate(input, offset, used[..., 2 * taps :], *window, offset_scale, remove_center)


def output_shape(
    input, offset_mask, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
) -> tuple[int, ...]:
    """Shape of the output; raises ValueError for arguments that do not fit."""
    size, taps = check_window(
        input, kernel_size, stride, padding, dilation, groups, offset_scale, remove_center
    )
    check_like(offset_mask, "offset_mask", input, "input")
    check_dim(offset_mask, "offset_mask", 4)
    needed = 3 * groups * taps
    if offset_mask.shape[3] < needed:
        raise ValueError(
            f"offset_mask: expected at least {needed} channels (3 * groups * taps), "
            f"got {offset_mask.shape[3]}"
        )
    check_shape(offset_mask, "offset_mask", (*size, offset_mask.shape[3]))
    return *size, input.shape[3]
