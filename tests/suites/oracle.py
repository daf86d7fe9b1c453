"""Pieces of the nested-loop oracles, written from the definitions in plain Python."""

import math


def bilinear(image, y, x):
    """Sample a 2-D array at (y, x); neighbours outside it and non-finite positions give 0."""
    if not (math.isfinite(y) and math.isfinite(x)):
        return 0.0
    height, width = image.shape
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < height and 0 <= col < width:
                total += image[row, col] * (1 - abs(y - row)) * (1 - abs(x - col))
    return total


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def out_size(size, kernel, stride, padding, dilation):
    """Number of positions of a sliding window."""
    count, start = 0, -padding
    while start + dilation * (kernel - 1) < size + padding:
        count, start = count + 1, start + stride
    return count
