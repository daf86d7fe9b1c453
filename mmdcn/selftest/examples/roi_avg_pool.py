from ._random import normal, regions


def arguments(scale: int) -> dict:
    height, width = 10 * scale, 12 * scale
    return dict(
        input=normal(2, 16 * scale, height, width),
        rois=regions(20 * scale, 2, 8 * height, 8 * width),
        output_size=(3, 4),
        spatial_scale=1 / 8,
    )
