"""The suite of deform_ps_roi_pool."""

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from .oracle import pair
from .rois import EXAMPLE_ROIS, RoiSuite, clamped_bilinear, make_rois, round_half_away


def oracle(
    input, rois, offset, mask, output_size, output_channels, group_size, part_size,
    sample_per_part, spatial_scale, trans_std,
):  # fmt: skip
    ph, pw = pair(output_size)
    part_h, part_w = pair(output_size if part_size is None else part_size)
    height, width = input.shape[2:]
    classes = 1
    if offset is not None or mask is not None:
        classes = mask.shape[1] if offset is None else offset.shape[1] // 2
    out = np.zeros((len(rois), output_channels, ph, pw))
    for r, c, i, j in np.ndindex(*out.shape):
        x1, y1 = (round_half_away(v) * spatial_scale - 0.5 for v in rois[r, 1:3])
        x2, y2 = ((round_half_away(v) + 1) * spatial_scale - 0.5 for v in rois[r, 3:5])
        roi_w, roi_h = max(x2 - x1, 0.1), max(y2 - y1, 0.1)
        part = (r, i * part_h // ph, j * part_w // pw)
        k = c // (output_channels // classes)
        top, left = y1 + i * roi_h / ph, x1 + j * roi_w / pw
        if offset is not None:
            left += offset[part[0], 2 * k, part[1], part[2]] * trans_std * roi_w
            top += offset[part[0], 2 * k + 1, part[1], part[2]] * trans_std * roi_h
        cell = i * group_size // ph * group_size + j * group_size // pw
        image = input[int(rois[r, 0]), c * group_size**2 + cell]
        values = []
        for p, q in np.ndindex(sample_per_part, sample_per_part):
            y = top + p * roi_h / ph / sample_per_part
            x = left + q * roi_w / pw / sample_per_part
            if -0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5:
                values.append(clamped_bilinear(image, y, x))
        out[r, c, i, j] = sum(values) / max(len(values), 1)
        if mask is not None:
            out[r, c, i, j] *= mask[part[0], k, part[1], part[2]]
    return out


class DeformPSRoIPool(RoiSuite):
    name = "deform_ps_roi_pool"
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset", "mask")

    tiny = {
        "modulated": dict(batch=2, rois=3, channels=2),
        "offset_only": dict(mask=False, channels=3, output_size=(3, 2), trans_std=0.4),
        "mask_only": dict(offset=False, classes=2, samples=1),
        "classes": dict(channels=4, classes=2, samples=2),
        "parts_of_several_bins": dict(output_size=(4, 3), part_size=2, rois=2),
        "more_parts_than_bins": dict(output_size=2, part_size=(3, 5)),
        "more_cells_than_bins": dict(output_size=(2, 1), group_size=3),
        "one_cell": dict(output_size=3, group_size=1, channels=3),
        "plain": dict(batch=2, rois=4, offset=False, mask=False, samples=3),
        "small_and_inverted": dict(rois=4, smallest=-3, spatial_scale=1.0, size=(6, 8)),
    }
    cases = {
        "plain": dict(batch=2, channels=21, rois=12, output_size=7, group_size=7, size=(25, 18),
                      offset=False, mask=False),
        "modulated": dict(batch=2, channels=21, rois=12, output_size=7, group_size=7),
        "wide": dict(batch=2, channels=70, rois=9, group_size=3, output_size=(5, 3)),
        "class_of_its_own": dict(batch=2, channels=21, classes=21, rois=6, group_size=3,
                                 output_size=3),
        "classes": dict(batch=2, channels=80, classes=2, rois=6, part_size=(2, 5)),
        "one_cell": dict(batch=2, channels=40, rois=9, group_size=1, output_size=7),
        "one_channel": dict(channels=1, rois=5, output_size=(1, 6)),
        "one_pixel": dict(channels=6, rois=5, size=(1, 1), spatial_scale=0.25),
        "many_samples": dict(channels=4, rois=5, samples=9),
        "image_without_rois": dict(batch=9, channels=8, rois=2),
        "inverted": dict(batch=2, channels=8, rois=9, smallest=-20),
    }  # fmt: skip
    # One cell, so that most of the input is read.
    large = dict(batch=3, channels=70, rois=30, size=(19, 22), output_size=(4, 5), smallest=12,
                 group_size=1, part_size=3, classes=2)  # fmt: skip
    errors = {
        **RoiSuite.errors,
        "output_channels": (dict(output_channels=3), "input: expected shape"),
        "output_channels_zero": (dict(output_channels=0), "output_channels: expected a positive"),
        "group_size": (dict(group_size=3), "input: expected shape"),
        "group_size_zero": (dict(group_size=0), "group_size: expected a positive number"),
        "part_size": (dict(part_size=(0, 2)), "part_size: expected"),
        "part_size_of_offset": (dict(part_size=3), "offset: expected shape"),
        "sample_per_part": (dict(sample_per_part=0), "sample_per_part: expected an integer in"),
        "trans_std": (dict(trans_std=float("nan")), "trans_std: expected a finite number"),
        "offset_dim": (dict(offset=lambda a: a["offset"][0]), "offset: expected a 4-dimensional"),
        "offset_odd": (dict(offset=lambda a: a["offset"][:, :1]),
                       "offset: expected 2 channels per class"),
        "offset_classes": (dict(offset=lambda a: a["offset"].repeat(1, 3, 1, 1)),
                           r"offset: expected .* number of classes that divides output_channels"),
        "offset_rois": (dict(offset=lambda a: a["offset"][1:]), "offset: expected shape"),
        "offset_size": (dict(offset=lambda a: a["offset"][..., 1:]), "offset: expected shape"),
        "offset_dtype": (dict(offset=lambda a: a["offset"].float()),
                         "offset: expected the dtype of input"),
        "mask_dim": (dict(mask=lambda a: a["mask"][0]), "mask: expected a 4-dimensional"),
        "mask_classes": (dict(mask=lambda a: a["mask"].repeat(1, 2, 1, 1)), "mask: expected shape"),
        "mask_no_classes": (dict(mask=lambda a: a["mask"][:, :0]), "mask: expected 1 channels"),
        "mask_classes_alone": (
            dict(offset=None, mask=lambda a: a["mask"].repeat(1, 4, 1, 1)),
            "mask: expected 1 channels per class, in a number of classes that divides",
        ),
        "mask_dtype": (dict(mask=lambda a: a["mask"].half()), "mask: expected the dtype of input"),
    }  # fmt: skip

    def make(
        self, seed=0, batch=1, channels=2, rois=3, size=(9, 7), output_size=2, group_size=2,
        part_size=None, samples=4, classes=1, spatial_scale=0.5, trans_std=0.1, offset=True,
        mask=True, smallest=4,
    ):  # fmt: skip
        rng = np.random.default_rng(seed)
        count = rois if batch else 0
        parts = pair(output_size if part_size is None else part_size)
        inputs = channels * group_size**2
        return dict(
            input=torch.from_numpy(rng.standard_normal((batch, inputs, *size))),
            rois=make_rois(rng, count, batch, size, spatial_scale, smallest),
            offset=torch.from_numpy(rng.standard_normal((count, 2 * classes, *parts)))
            if offset
            else None,
            mask=torch.from_numpy(rng.random((count, classes, *parts))) if mask else None,
            output_size=output_size,
            output_channels=channels,
            group_size=group_size,
            part_size=part_size,
            sample_per_part=samples,
            spatial_scale=spatial_scale,
            trans_std=trans_std,
        )

    def random_config(self, draw):
        def ints(low, high):
            return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

        classes = draw(st.integers(1, 3))
        return dict(
            seed=draw(st.integers(0, 2**16)),
            batch=draw(st.integers(0, 3)),
            channels=classes * draw(st.sampled_from([1, 2, 5, 33])),
            rois=draw(st.integers(0, 5)),
            size=ints(1, 14),
            output_size=ints(1, 7),
            group_size=draw(st.integers(1, 4)),
            part_size=draw(st.none() | st.just(ints(1, 5))),
            samples=draw(st.integers(1, 4)),
            classes=classes,
            spatial_scale=draw(st.sampled_from([0.25, 0.5, 1.0])),
            trans_std=draw(st.sampled_from([0.1, 0.5])),
            offset=draw(st.booleans()),
            mask=draw(st.booleans()),
            smallest=draw(st.sampled_from([4, 0, -10])),
        )

    def offsets(self, args):
        return args["offset"].unflatten(1, (-1, 2)).movedim(2, -1)

    def flops(self, args, output):
        # As for deform_roi_pool.
        forward = 2 * 4 * output.numel() * args["sample_per_part"] ** 2
        return forward, 4 * forward

    def operator_arguments(self, args):
        part_size = args["output_size"] if args["part_size"] is None else args["part_size"]
        return super().operator_arguments({**args, "part_size": part_size})


SUITES = [DeformPSRoIPool]

CELLS = (2, 18, 6, 7)
MODULES = {
    "DeformPSRoIPool": (lambda: ops.DeformPSRoIPool(3, 2, 3), [CELLS, EXAMPLE_ROIS]),
    "DeformPSRoIPoolPack": (lambda: ops.DeformPSRoIPoolPack(3, 2, 3), [CELLS, EXAMPLE_ROIS]),
    "ModulatedDeformPSRoIPoolPack": (
        lambda: ops.ModulatedDeformPSRoIPoolPack(3, 2, 3),
        [CELLS, EXAMPLE_ROIS],
    ),
}
