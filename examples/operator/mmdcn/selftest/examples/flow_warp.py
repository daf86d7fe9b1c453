from ._random import normal


def arguments(scale: int) -> dict:
    size = 8 * scale
    return dict(input=normal(2, 16, size, size + 1), offset=normal(2, 2, size, size + 1))
