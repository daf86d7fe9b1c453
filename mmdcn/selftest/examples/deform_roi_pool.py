from . import roi_avg_pool
from ._random import normal


def arguments(scale: int) -> dict:
    given = roi_avg_pool.arguments(scale)
    count, bins = len(given["rois"]), given["output_size"]
    return given | dict(offset=normal(count, 2, *bins), mask=normal(count, 1, *bins).sigmoid())
