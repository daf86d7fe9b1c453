"""The figure of deform_roi_pool."""

from mmdcn import ops

from .calls import constant, roi
from .panel import Panel

TILE = 1  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    box = (1.0, 1.0, 10.0, 10.0)
    kwargs = dict(function=ops.deform_roi_pool, output_size=3, box=box, drawn=(0.5, 0.5, 9.5, 9.5))
    right = constant((1, 2, 3, 3), {(0, 0, 1, 1): 2.0}, 0.0)
    down = constant((1, 2, 3, 3), {(0, 1, 1, 1): 2.0}, 0.0)
    half = constant((1, 1, 3, 3), {(0, 0, 1, 1): 0.3}, 1.0)
    return [
        roi("bin (1, 1), offset = 0", bin_=(1, 1), **kwargs),
        roi("Δx = 2: shifted by 2 · gamma\n· width of the RoI", bin_=(1, 1), offset=right,
            **kwargs),
        roi("Δy = 2", bin_=(1, 1), offset=down, **kwargs),
        roi("Δx = 2, gamma = 0.15", bin_=(1, 1), offset=right, gamma=0.15, **kwargs),
        roi("mask: 0.3 for the bin\nin the middle", bin_=None, mask=half, **kwargs),
        roi("sampling_ratio = 1: one sample", bin_=(1, 1), sampling_ratio=1, **kwargs),
        roi("sampling_ratio = 2", bin_=(1, 1), sampling_ratio=2, **kwargs),
        roi("output_size = 2, bin (1, 1)", bin_=(1, 1), **{**kwargs, "output_size": 2}),
        roi("spatial_scale = 0.5, bin (1, 1)", bin_=(1, 1), spatial_scale=0.5,
            **{**kwargs, "drawn": (0.0, 0.0, 4.5, 4.5)}),
    ]  # fmt: skip
