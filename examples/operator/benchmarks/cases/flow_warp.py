"""flow_warp."""

import torch

from .case import Arguments, Case, random_offsets


def make() -> Arguments:
    torch.manual_seed(0)
    return dict(input=torch.randn(1, 64, 200, 320), offset=random_offsets(1, 2, 200, 320))


CASES = [Case("flow_warp", "1x64x200x320", make, ("input", "offset"), largest=True)]
