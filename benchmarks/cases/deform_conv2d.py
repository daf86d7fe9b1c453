"""deform_conv2d and modulated_deform_conv2d."""

import torch

from .case import FB, Arguments, Case, F, random_offsets


def deform_conv(channels: int, height: int, width: int, modulated: bool = True, **options):
    def make() -> Arguments:
        torch.manual_seed(0)
        args = dict(
            input=torch.randn(1, channels, height, width),
            offset=random_offsets(1, 18, height, width),
            mask=torch.rand(1, 9, height, width),
            weight=torch.randn(channels, channels, 3, 3) / (3 * channels**0.5),
            bias=torch.randn(channels),
            padding=1,
        )
        if not modulated:
            del args["mask"]
        return args

    names = ("input", "offset", *["mask"] * modulated, "weight", "bias")
    operator = "modulated_deform_conv2d" if modulated else "deform_conv2d"
    return Case(operator, f"1x{channels}x{height}x{width}, 3x3", make, names, **options)


def targets(mmcv: float, conv: float, mmcv_backward: float) -> dict:
    return {
        (F, "mmcv"): mmcv,
        (F, "conv2d"): 1 / conv,
        (F, "OpenVINO"): 1.4,
        (F, "ONNX Runtime"): 1.4,
        (FB, "mmcv"): mmcv_backward,
        (FB, "conv2d"): 1 / 2.2,
    }


CASES = [
    deform_conv(128, 100, 168, targets=targets(8, 1.35, 25), largest=True),
    deform_conv(256, 50, 84, targets=targets(7, 1.35, 14)),
    deform_conv(512, 25, 42, targets=targets(4, 1.6, 7)),
    deform_conv(8, 4, 4, targets={(F, "conv2d"): 1 / 3}),
    deform_conv(128, 100, 168, modulated=False, largest=True),
]
