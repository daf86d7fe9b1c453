"""deform_ps_roi_pool, and the arguments of the poolings that are compared with it."""

import torch

from .case import FB, Arguments, Case, F, random_rois


def deform_ps_roi_pool(**options) -> Case:
    def make() -> Arguments:
        torch.manual_seed(0)
        rois = random_rois(300, 1, 608, 1008)
        input = torch.randn(1, 21 * 49, 38, 63)
        offset, mask = torch.randn(300, 2, 7, 7), torch.rand(300, 1, 7, 7)
        return dict(input=input, rois=rois, offset=offset, mask=mask, output_size=7,
                    output_channels=21, group_size=7, spatial_scale=1 / 16)  # fmt: skip

    name = "1x1029x38x63, 300 RoIs, 7x7, 21 classes"
    return Case("deform_ps_roi_pool", name, make, ("input", "offset", "mask"), **options)


def plain_pool(operator: str, **options) -> Case:
    def make() -> Arguments:
        args = deform_ps_roi_pool().make()
        return {name: args[name] for name in ("input", "rois", "output_size", "spatial_scale")}

    return Case(operator, "1x1029x38x63, 300 RoIs, 7x7", make, ("input",), **options)


CASES = [
    deform_ps_roi_pool(targets={(F, "reference"): 10, (FB, "reference"): 10}, largest=True),
]
