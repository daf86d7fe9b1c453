from . import ps_roi_pool
from ._random import normal


def arguments(scale: int) -> dict:
    given = ps_roi_pool.arguments(scale)
    count = len(given["rois"])
    return given | dict(
        offset=normal(count, 2, 3, 3),
        mask=normal(count, 1, 3, 3).sigmoid(),
        output_channels=given["input"].shape[1] // 9,
        group_size=3,
        sample_per_part=2,
    )
