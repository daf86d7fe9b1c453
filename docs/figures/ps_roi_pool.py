"""The figure of ps_roi_pool."""

from mmdcn import ops

from .calls import roi
from .panel import Panel

TILE = 0  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    box = (1, 1, 10, 10)
    kwargs = dict(function=ops.ps_roi_pool, output_size=3, channels=9, box=box,
                  drawn=(0.5, 0.5, 9.5, 9.5))  # fmt: skip
    return [
        roi("all bins: a colour per channel", bin_=None, **kwargs),
        roi("bin (0, 0): channel 0", bin_=(0, 0), **kwargs),
        roi("bin (1, 2): channel 5", bin_=(1, 2), **kwargs),
        roi("spatial_scale = 0.5", bin_=None, spatial_scale=0.5,
            **{**kwargs, "drawn": (0.5, 0.5, 4.5, 4.5)}),
    ]  # fmt: skip
