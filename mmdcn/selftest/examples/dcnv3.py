from ._random import normal


def arguments(scale: int) -> dict:
    n, groups, size = 2, 2 * scale, 8 * scale
    return dict(
        input=normal(n, size, size + 1, 16 * groups),
        offset=normal(n, size, size + 1, groups * 18),
        mask=normal(n, size, size + 1, groups * 9),
        groups=groups,
        mask_softmax=True,
    )
