"""The suite of dcnv4."""

import numpy as np
import torch
from hypothesis import strategies as st

from mmdcn import ops

from . import dcnv3
from .aggregation import AggregationSuite, taps_of
from .oracle import pair


def oracle(input, offset_mask, groups, **options):
    per_group = 3 * len(taps_of(pair(options["kernel_size"]), options["remove_center"]))
    offsets, weights = [], []
    for g in range(groups):
        own = offset_mask[..., g * per_group : (g + 1) * per_group]
        offsets.append(own[..., : per_group // 3 * 2])
        weights.append(own[..., per_group // 3 * 2 :])
    offset, mask = np.concatenate(offsets, -1), np.concatenate(weights, -1)
    return dcnv3.oracle(input, offset, mask, groups=groups, **options)


class DCNv4(AggregationSuite):
    name = "dcnv4"
    oracle = staticmethod(oracle)
    differentiable = ("input", "offset_mask")
    tiny = {**AggregationSuite.tiny, "surplus": dict(surplus=2)}
    cases = {
        **AggregationSuite.cases,
        "surplus": dict(channels=32, groups=4, size=(9, 8), surplus=4),
    }
    errors = {
        **AggregationSuite.errors,
        "offset_mask_dim": (dict(offset_mask=lambda a: a["offset_mask"][0]),
                            "offset_mask: expected"),
        "offset_mask_batch": (dict(offset_mask=lambda a: torch.cat([a["offset_mask"]] * 2)),
                              "offset_mask: expected shape"),
        "offset_mask_channels": (
            dict(offset_mask=lambda a: a["offset_mask"][..., 1:]),
            r"offset_mask: expected at least 54 channels .*, got 53",
        ),
        "offset_mask_size": (dict(offset_mask=lambda a: a["offset_mask"][:, 1:]),
                             "offset_mask: expected shape"),
        "offset_mask_dtype": (dict(offset_mask=lambda a: a["offset_mask"].float()),
                              "offset_mask: expected the dtype of input"),
        "groups_of_offset_mask": (dict(groups=4), "offset_mask: expected at least 108 channels"),
    }  # fmt: skip

    def make(self, surplus=0, **config):
        input, offset, weight, options = self.make_parts(**config)
        parts = torch.cat([offset.flatten(4), weight], -1).flatten(3)
        offset_mask = torch.cat([parts, parts.new_ones(*parts.shape[:3], surplus)], -1)
        return dict(input=input, offset_mask=offset_mask, **options)

    def random_config(self, draw):
        return {**super().random_config(draw), "surplus": draw(st.integers(0, 7))}

    def parts(self, args):
        """Views of the offsets and of the weights of each group."""
        kh, kw = pair(args["kernel_size"])
        groups, taps = args["groups"], kh * kw - args["remove_center"]
        own = args["offset_mask"][..., : 3 * groups * taps].unflatten(-1, (groups, 3 * taps))
        return own[..., : 2 * taps].unflatten(-1, (taps, 2)), own[..., 2 * taps :]

    def offsets(self, args):
        return self.parts(args)[0]

    def masks(self, args):
        return self.parts(args)[1]


SUITES = [DCNv4]

MAP, IMAGE = (2, 6, 7, 16), (2, 16, 6, 7)
MODULES = {
    "DCNv4": (lambda: ops.DCNv4(16, dw_kernel_size=3, center_feature_scale=True), [MAP]),
    "DCNv4Conv2d": (lambda: ops.DCNv4Conv2d(16, 8, 3, padding=1), [IMAGE]),
}
