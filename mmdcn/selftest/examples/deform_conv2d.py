from ._random import normal


def arguments(scale: int) -> dict:
    n, c, size = 2, 16 * scale, 8 * scale
    return dict(
        input=normal(n, c, size, size + 1),
        offset=normal(n, 2 * 18, size, size + 1),
        weight=normal(2 * c, c, 3, 3, std=c**-0.5),
        bias=normal(2 * c),
        padding=1,
        deform_groups=2,
    )
