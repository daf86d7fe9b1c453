"""What the cases of dcnv3 and dcnv4 share."""

import torch

from .case import FB, Arguments, Case, F, random_offsets


def dcn(version: int, height: int, width: int, channels: int, groups: int, **options):
    def make() -> Arguments:
        torch.manual_seed(0)
        input = torch.randn(1, height, width, channels)
        offset = random_offsets(1, height, width, groups, 18)
        weight = torch.randn(1, height, width, groups, 9).softmax(-1)
        if version == 3:
            return dict(
                input=input, offset=offset.flatten(3), mask=weight.flatten(3), groups=groups
            )
        return dict(
            input=input, offset_mask=torch.cat([offset, weight], -1).flatten(3), groups=groups
        )

    names = ("input", "offset", "mask") if version == 3 else ("input", "offset_mask")
    name = f"1x{height}x{width}x{channels}, {groups} groups, 3x3"
    return Case(f"dcnv{version}", name, make, names, **options)


def targets(early: bool, openvino: float) -> dict:
    targets = {
        (F, "grid_sample"): 25 if early else 10,
        (FB, "grid_sample"): 20 if early else 8,
        (F, "OpenVINO"): openvino,
    }
    return {**targets, (F, "copy"): 1 / 4} if early else targets


SHAPES = [
    dict(height=200, width=320, channels=64, groups=4, targets=targets(True, 4), largest=True),
    dict(height=100, width=160, channels=128, groups=8, targets=targets(True, 4)),
    dict(height=50, width=80, channels=256, groups=16, targets=targets(False, 2.5)),
    dict(height=25, width=40, channels=512, groups=32, targets=targets(False, 2.5)),
]
