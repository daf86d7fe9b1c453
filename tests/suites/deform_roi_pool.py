"""The suite of deform_roi_pool."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from .oracle import pair
from .rois import EXAMPLE_ROIS, RoiSuite, clamped_bilinear, make_rois


def oracle(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma):
    ph, pw = pair(output_size)
    channels, height, width = input.shape[1:]
    out = np.zeros((len(rois), channels, ph, pw))
    for r, c, i, j in np.ndindex(*out.shape):
        image = input[int(rois[r, 0]), c]
        x1, y1, x2, y2 = rois[r, 1:] * spatial_scale - 0.5
        roi_h, roi_w = y2 - y1, x2 - x1
        rows = sampling_ratio or max(math.ceil(roi_h / ph), 0)
        columns = sampling_ratio or max(math.ceil(roi_w / pw), 0)
        top, left = y1 + i * roi_h / ph, x1 + j * roi_w / pw
        if offset is not None:
            left += gamma * roi_w * offset[r, 0, i, j]
            top += gamma * roi_h * offset[r, 1, i, j]
        total = 0.0
        for p, q in np.ndindex(rows, columns):
            y = top + (p + 0.5) * roi_h / ph / rows
            x = left + (q + 0.5) * roi_w / pw / columns
            if -1 <= y <= height and -1 <= x <= width:
                total += clamped_bilinear(image, y, x)
        out[r, c, i, j] = total / max(rows * columns, 1)
        if mask is not None:
            out[r, c, i, j] *= mask[r, 0, i, j]
    return out


class DeformRoIPool(RoiSuite):
    name = "deform_roi_pool"
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset", "mask")

    tiny = {
        "modulated": dict(batch=2, rois=3, channels=2),
        "offset_only": dict(mask=False, channels=3, output_size=(3, 2), gamma=0.4),
        "mask_only": dict(offset=False, output_size=2, sampling_ratio=1),
        "adaptive_grid": dict(sampling_ratio=0, output_size=(1, 2), size=(5, 7)),
        "plain": dict(batch=2, rois=4, offset=False, mask=False, sampling_ratio=3),
        "small_and_inverted": dict(rois=4, smallest=-3, spatial_scale=1.0, size=(6, 8)),
    }
    cases = {
        "plain": dict(batch=2, channels=64, rois=12, output_size=7, offset=False, mask=False),
        "plain_adaptive": dict(batch=2, channels=5, rois=12, output_size=3, sampling_ratio=0,
                               offset=False, mask=False),
        "modulated": dict(batch=2, channels=40, rois=12, output_size=7),
        "odd_channels": dict(batch=3, channels=35, rois=9, output_size=(5, 3)),
        "one_channel": dict(channels=1, rois=5, output_size=(1, 6)),
        "one_pixel": dict(channels=6, rois=5, size=(1, 1), spatial_scale=0.25),
        "one_row": dict(channels=6, rois=5, size=(1, 15)),
        "adaptive": dict(batch=2, channels=9, rois=9, sampling_ratio=0, size=(25, 18)),
        "many_samples": dict(channels=4, rois=5, sampling_ratio=9, output_size=2),
        "image_without_rois": dict(batch=9, channels=8, rois=2),
        "inverted": dict(batch=2, channels=8, rois=9, smallest=-20),
    }  # fmt: skip
    large = dict(batch=3, channels=70, rois=30, size=(19, 22), output_size=(4, 5), smallest=12)
    errors = {
        **RoiSuite.errors,
        "sampling_ratio": (dict(sampling_ratio=-1), "sampling_ratio: expected an integer in"),
        "sampling_ratio_huge": (dict(sampling_ratio=2**40), "sampling_ratio: expected an integer"),
        "gamma": (dict(gamma=float("inf")), "gamma: expected a finite number"),
        "offset_rois": (dict(offset=lambda a: a["offset"][1:]), "offset: expected shape"),
        "offset_channels": (dict(offset=lambda a: a["offset"][:, :1]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][..., 1:]), "offset: expected shape"),
        "offset_dtype": (dict(offset=lambda a: a["offset"].float()),
                         "offset: expected the dtype of input"),
        "mask_shape": (dict(mask=lambda a: a["mask"][:, 0]), "mask: expected shape"),
        "mask_size": (dict(mask=lambda a: a["mask"][:, :, 1:]), "mask: expected shape"),
        "mask_dtype": (dict(mask=lambda a: a["mask"].half()), "mask: expected the dtype of input"),
    }  # fmt: skip

    def make(
        self, seed=0, batch=1, channels=4, rois=3, size=(9, 7), output_size=2, spatial_scale=0.5,
        sampling_ratio=2, gamma=0.1, offset=True, mask=True, smallest=4,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        bins = pair(output_size)
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, channels, *size))),
            rois=make_rois(rng, rois if batch else 0, batch, size, spatial_scale, smallest),
            offset=torch.from_numpy(rng.standard_normal((rois if batch else 0, 2, *bins)))
            if offset
            else None,
            mask=torch.from_numpy(rng.random((rois if batch else 0, 1, *bins))) if mask else None,
            output_size=output_size,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            gamma=gamma,
        )

    def random_config(self, draw):
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=draw(st.integers(1, 70)),
            rois=draw(st.integers(0, 6)),
            size=draw(st.tuples(st.integers(1, 14), st.integers(1, 14))),
            output_size=draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
            spatial_scale=draw(st.sampled_from([0.25, 0.5, 1.0])),
            sampling_ratio=draw(st.integers(0, 4)),
            gamma=draw(st.sampled_from([0.1, 0.5])),
            offset=draw(st.booleans()),
            mask=draw(st.booleans()),
            smallest=draw(st.sampled_from([4, 0, -10])),
        )

    def offsets(self, args):
        return args["offset"].movedim(1, -1)

    def flops(self, args, output):
        # Two operations for each of the four neighbours of a sample. Backward: the input's
        # gradient, and for offsets and mask the value and its two derivatives.
        forward = 2 * 4 * output.numel() * args["sampling_ratio"] ** 2
        return forward, 4 * forward


SUITES = [DeformRoIPool]

IMAGE = (2, 16, 6, 7)
MODULES = {
    "DeformRoIPool": (lambda: ops.DeformRoIPool(3), [IMAGE, EXAMPLE_ROIS]),
    "DeformRoIPoolPack": (lambda: ops.DeformRoIPoolPack(3, 16), [IMAGE, EXAMPLE_ROIS]),
    "ModulatedDeformRoIPoolPack": (
        lambda: ops.ModulatedDeformRoIPoolPack(3, 16),
        [IMAGE, EXAMPLE_ROIS],
    ),
}
