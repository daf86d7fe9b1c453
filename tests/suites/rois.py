"""What the suites of the RoI operators share."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from .oracle import pair
from .suite import Suite

EXAMPLE_ROIS = torch.tensor([[0.0, 0, 0, 3, 3], [1, 1, 2, 5, 4]])


def clamped_bilinear(image, y, x):
    """Sample a 2-D array at (y, x) after moving the point onto the nearest one inside."""
    height, width = image.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for row in range(height):
        for col in range(width):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - col))
            total += weight * image[row, col]
    return total


def round_half_away(value):
    return math.copysign(math.floor(abs(value) + 0.5), value)


def make_rois(rng, count, batch, size, scale, smallest=4):
    """RoIs that overlap maps of ``size`` pixels, ``scale`` of them per pixel of the image.

    Coordinates are multiples of 1/4 below 64, which bfloat16 holds exactly.
    """
    height, width = (s / scale for s in size)
    assert max(height, width) <= 60
    rois = np.zeros((count, 5))
    rois[:, 0] = rng.integers(0, max(batch, 1), count)
    for first, length in ((1, width), (2, height)):
        ends = rng.uniform(-2, length + 2, (count, 2))
        ends.sort(axis=1)
        ends[:, 1] = np.maximum(ends[:, 1], ends[:, 0] + smallest)
        rois[:, first], rois[:, first + 2] = ends.T
    return torch.from_numpy(np.round(rois * 4) / 4)


class RoiSuite(Suite):
    """``make`` takes ``rois`` (how many) and ``batch``."""

    @property
    def emulated(self) -> dict:
        return {**self.large, "batch": 1, "channels": 12, "rois": 14}

    errors = {
        "input_dim": (dict(input=lambda a: a["input"][0]), "input: expected a 4-dimensional"),
        "input_dtype": (dict(input=lambda a: a["input"].int()), "input: expected dtype float64"),
        "input_no_channels": (dict(input=lambda a: a["input"][:, :0]), "input: expected"),
        "input_no_pixels": (
            dict(input=lambda a: a["input"][..., :0]), "input: expected at least one"
        ),
        "rois_dim": (dict(rois=lambda a: a["rois"][0]), "rois: expected a 2-dimensional"),
        "rois_columns": (dict(rois=lambda a: a["rois"][:, 1:]), "rois: expected shape"),
        "rois_dtype": (dict(rois=lambda a: a["rois"].long()), "rois: expected dtype float64"),
        "output_size_zero": (dict(output_size=(0, 2)), "output_size: expected"),
        "output_size_length": (dict(output_size=(1, 2, 3)), "output_size: expected"),
        "spatial_scale_zero": (dict(spatial_scale=0.0), "spatial_scale: expected a positive"),
        "spatial_scale_nan": (
            dict(spatial_scale=float("nan")), "spatial_scale: expected a positive"
        ),
    }  # fmt: skip

    def without_rois(self, args):
        """The same call with no RoIs."""
        count = args["rois"].shape[0]
        return {
            k: v[:0] if k != "input" and isinstance(v, torch.Tensor) and len(v) == count else v
            for k, v in args.items()
        }


class BoxPoolSuite(RoiSuite):
    """Poolings over boxes of whole pixels: their only tensors are ``input`` and ``rois``."""

    differentiable = ("input",)

    def make(
        self, seed=0, batch=1, channels=2, rois=3, size=(9, 7), output_size=2, spatial_scale=0.5,
        smallest=4,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        channels *= self.cells(pair(output_size))
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, channels, *size))),
            rois=make_rois(rng, rois if batch else 0, batch, size, spatial_scale, smallest),
            output_size=output_size,
            spatial_scale=spatial_scale,
        )

    def cells(self, output_size) -> int:
        """Input channels per output channel."""
        raise NotImplementedError

    def random_config(self, draw):
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=draw(st.sampled_from([1, 2, 5, 33])),
            rois=draw(st.integers(0, 6)),
            size=draw(st.tuples(st.integers(1, 14), st.integers(1, 14))),
            output_size=draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
            spatial_scale=draw(st.sampled_from([0.25, 0.5, 1.0])),
            smallest=draw(st.sampled_from([4, 0, -10])),
        )

    def offsets(self, args):
        return None

    def flops(self, args, output):
        return output.numel(), output.numel()  # an addition for each, at least
