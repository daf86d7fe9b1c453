"""`mmdcn.Deformable` in configs: layers are replaced before weights are loaded."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope

import mmdcn.models  # noqa: F401

SMALL = dict(depth=18, base_channels=8)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
@pytest.mark.parametrize("layer_type", ["DCN", "DCNv2"])
def test_pretrained_weights_of_the_plain_model_load(scope, layer_type, tmp_path):
    pytest.importorskip(scope)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        plain = MODELS.build(dict(type=f"{scope}.ResNet", **SMALL))
        plain.eval()  # its `train` of MMDetection returns None
        plain.init_weights()
        file = tmp_path / "plain.pth"
        torch.save(
            dict(state_dict={f"backbone.{k}": v for k, v in plain.state_dict().items()}), file
        )
        init = dict(type="Pretrained", checkpoint=str(file), prefix="backbone.")
        model = MODELS.build(
            dict(
                type="mmdcn.Deformable",
                model=dict(type=f"{scope}.ResNet", init_cfg=init, **SMALL),
                layers=r"layer[234]\..*conv2",
                layer_type=layer_type,
            )
        )
        model.init_weights()
    replaced = [n for n, _ in model.named_modules() if n.endswith("conv2.conv_offset")]
    assert len(replaced) == 6
    image = torch.randn(1, 3, 64, 64)
    model.eval()
    for mine, theirs in zip(model(image), plain(image), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_initialisation_leaves_the_branches_zero():
    pytest.importorskip("mmdet")
    init_default_scope("mmdet")
    model = MODELS.build(
        dict(
            type="mmdcn.Deformable",
            model=dict(type="mmdet.ResNet", **SMALL),
            layers=r"layer4\..*conv2",
        )
    )
    model.init_weights()
    branches = [m for n, m in model.named_modules() if n.endswith("conv_offset")]
    assert len(branches) == 2
    assert all(not p.any() for branch in branches for p in branch.parameters())
