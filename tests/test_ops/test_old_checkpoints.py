"""Checkpoints whose offset convolutions stand beside the deformable ones, in plain PyTorch."""

import copy

import pytest
import torch
from torch import nn

from mmdcn.ops import DeformConv2dPack, ModulatedDeformConv2dPack


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.conv2 = layer(4, 6, 3, deform_groups=2)


@pytest.mark.parametrize("layer", [DeformConv2dPack, ModulatedDeformConv2dPack])
@pytest.mark.parametrize("copied", [False, True])
def test_keys_of_the_offset_convolution_are_renamed(layer, copied):
    model = nn.Sequential(Block(layer), Block(layer))
    if copied:
        model = copy.deepcopy(model)
    new = {key: torch.rand_like(value) for key, value in model.state_dict().items()}
    old = {key.replace(".conv_offset.", "_offset."): value for key, value in new.items()}
    assert "1.conv2_offset.bias" in old
    before = dict(old)
    model.load_state_dict(old)
    assert old == before
    assert all(torch.equal(value, new[key]) for key, value in model.state_dict().items())


def test_other_keys_still_have_to_fit():
    model = Block(DeformConv2dPack)
    state = {k.replace("conv1", "conv3"): v for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"Missing .*conv1\.weight[\s\S]*Unexpected .*conv3"):
        model.load_state_dict(state)
