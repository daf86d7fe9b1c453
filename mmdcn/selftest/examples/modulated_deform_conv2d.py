from . import deform_conv2d
from ._random import normal


def arguments(scale: int) -> dict:
    given = deform_conv2d.arguments(scale)
    n, channels, *size = given["offset"].shape
    return given | dict(mask=normal(n, channels // 2, *size).sigmoid())
