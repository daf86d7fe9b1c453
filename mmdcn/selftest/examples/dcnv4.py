from ._random import normal


def arguments(scale: int) -> dict:
    n, groups, size = 2, 2 * scale, 8 * scale
    return dict(
        input=normal(n, size, size + 1, 16 * groups),
        offset_mask=normal(n, size, size + 1, (groups * 27 + 7) // 8 * 8),
        groups=groups,
    )
