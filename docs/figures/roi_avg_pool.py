"""The figure of roi_avg_pool."""

from mmdcn import ops

from .calls import roi
from .panel import Panel

TILE = 0  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    exact, rounded, covered = (1.4, 2.3, 8.2, 7.8), (1, 2, 8, 8), (0.5, 1.5, 8.5, 8.5)
    kwargs = dict(function=ops.roi_avg_pool, output_size=3)
    return [
        roi("all bins: corners are rounded to\npixels, which belong to the RoI", box=exact,
            bin_=None, drawn=exact, **kwargs),
        roi("bin (0, 0) of output_size = 3", box=rounded, bin_=(0, 0), drawn=covered, **kwargs),
        roi("bin (1, 1): bins share pixels", box=rounded, bin_=(1, 1), drawn=covered, **kwargs),
        roi("bin (0, 0) of output_size = 2", function=ops.roi_avg_pool, output_size=2, box=rounded,
            bin_=(0, 0), drawn=covered),
        roi("spatial_scale = 0.5: the same RoI\non a map half as large", box=rounded, bin_=None,
            drawn=(0.5, 0.5, 4.5, 4.5), spatial_scale=0.5, **kwargs),
    ]  # fmt: skip
