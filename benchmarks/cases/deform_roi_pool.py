"""deform_roi_pool, with and without offsets."""

import torch

from .case import FB, Arguments, Case, F, random_rois


def roi_pool(**options) -> Case:
    def make() -> Arguments:
        torch.manual_seed(0)
        rois = random_rois(512, 2, 400, 672)
        input = torch.randn(2, 256, 100, 168)
        return dict(input=input, rois=rois, output_size=7, spatial_scale=0.25, sampling_ratio=2)

    name = "2x256x100x168, 512 RoIs, 7x7, 2x2 samples, no offsets"
    return Case("deform_roi_pool", name, make, ("input",), **options)


def deform_roi_pool(**options) -> Case:
    def make() -> Arguments:
        args = roi_pool().make()
        return {**args, "offset": torch.randn(512, 2, 7, 7), "mask": torch.rand(512, 1, 7, 7)}

    name = "2x256x100x168, 512 RoIs, 7x7, 2x2 samples, offsets and mask"
    return Case("deform_roi_pool", name, make, ("input", "offset", "mask"), **options)


CASES = [
    roi_pool(targets={(F, "mmcv"): 10, (FB, "mmcv"): 10, (F, "ONNX Runtime"): 3}, largest=True),
    deform_roi_pool(),
]
