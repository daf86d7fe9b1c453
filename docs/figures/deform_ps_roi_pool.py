"""The figure of deform_ps_roi_pool."""

from mmdcn import ops

from .calls import constant, roi
from .panel import Panel

TILE = 3  # the panel that stands for it on the first page


def panels() -> list[Panel]:
    box = (1, 1, 9, 9)
    base = dict(function=ops.deform_ps_roi_pool, box=box, drawn=(0.5, 0.5, 9.5, 9.5),
                output_channels=1)  # fmt: skip
    three = dict(base, output_size=3, group_size=3, channels=9)
    shift = constant((1, 2, 3, 3), {(0, 0, 1, 1): 2.0}, 0.0)
    parts = constant((1, 2, 1, 1), {(0, 0, 0, 0): 1.0, (0, 1, 0, 0): 1.0}, 0.0)
    half = constant((1, 1, 3, 3), {(0, 0, 1, 1): 0.2}, 1.0)
    return [
        roi("all bins, group_size = 3: a colour\nper channel", bin_=None, **three),
        roi("group_size = 1: one channel", bin_=None,
            **dict(base, output_size=3, group_size=1, channels=1)),
        roi("bin (1, 1): channel 4", bin_=(1, 1), **three),
        roi("Δx = 2: shifted by 2 · trans_std\n· width of the RoI", bin_=(1, 1), offset=shift,
            **three),
        roi("part_size = 1: one offset for\nthe whole RoI", bin_=None, offset=parts, part_size=1,
            **three),
        roi("Δx = 2, trans_std = 0.15", bin_=(1, 1), offset=shift, trans_std=0.15, **three),
        roi("mask: 0.2 for the bin\nin the middle", bin_=None, mask=half, **three),
        roi("sample_per_part = 1: one sample,\nat the corner of the bin", bin_=(1, 1),
            sample_per_part=1, **three),
        roi("output_size = 6 with group_size = 3:\nbin (2, 3) is in cell (1, 1)", bin_=(2, 3),
            **{**three, "output_size": 6}),
        roi("spatial_scale = 0.5", bin_=None, spatial_scale=0.5,
            **{**three, "drawn": (0.0, 0.0, 4.5, 4.5)}),
    ]  # fmt: skip
