"""Keys of early MMDetection, whose offset convolutions stand beside the deformable ones."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from mmdcn.checkpoints import rename_old_offset_keys
from mmdcn.ops import DeformConv2dPack, ModulatedDeformConv2dPack


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = layer(4, 6, 3, deform_groups=2)


@pytest.mark.parametrize("layer", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_keys_of_the_offset_convolution_are_renamed(layer):
    model = nn.Sequential(Block(layer), Block(layer))
    new = copy.deepcopy(model.state_dict())
    old = type(new)((k.replace(".conv_offset.", "_offset."), v) for k, v in new.items())
    old._metadata = new._metadata
    assert "1.conv2_offset.bias" in old
    before = list(old)
    renamed = rename_old_offset_keys(old, model.state_dict())
    assert list(old) == before
    assert list(renamed) == list(new)
    assert all(renamed[key] is new[key] for key in new)
    assert renamed._metadata["1.norm"] == dict(version=2)
    model.load_state_dict(renamed)


def test_keys_of_today_stay():
    weights = Block(DeformConv2dPack).state_dict()
    assert list(rename_old_offset_keys(weights, weights)) == list(weights)


def test_keys_that_the_model_knows_stay():
    """A layer of another project may well have an offset convolution beside it."""
    model = Block(DeformConv2dPack)
    model.conv2_offset = nn.Conv2d(4, 36, 3)
    weights = model.state_dict()
    del weights["conv2.conv_offset.weight"]
    assert list(rename_old_offset_keys(weights, model.state_dict())) == list(weights)


def test_other_keys_still_have_to_fit():
    model = Block(DeformConv2dPack)
    state = {k.replace("conv1", "conv3"): v for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"Missing .*conv1\.weight[\s\S]*Unexpected .*conv3"):
        model.load_state_dict(rename_old_offset_keys(state, model.state_dict()))


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_operators_leaves_pytorch_alone():
    run_python("""
        from torch.nn.modules import module

        def hooks():
            return {name: len(value) for name, value in vars(module).items()
                    if name.startswith("_global_") and hasattr(value, "__len__")}

        before = hooks()
        assert "_global_module_registration_hooks" in before
        import mmdcn.checkpoints, mmdcn.models, mmdcn.ops
        assert hooks() == before
    """)


def test_plain_pytorch_is_enough(tmp_path):
    torch.save(dict(state_dict={"weight": torch.arange(3.0)}, epoch=1), tmp_path / "file.pth")
    run_python(f"""
        import sys
        sys.modules["mmengine"] = None  # makes an import fail
        from mmdcn.checkpoints import load_checkpoint_file, rename_old_offset_keys
        weights = load_checkpoint_file({str(tmp_path / "file.pth")!r})["state_dict"]
        assert rename_old_offset_keys(weights, ["weight"])["weight"].tolist() == [0, 1, 2]
    """)
