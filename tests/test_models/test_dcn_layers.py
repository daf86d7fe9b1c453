"""mmdcn.DCN and mmdcn.DCNv2 inside unmodified ResNets of MMDetection and MMSegmentation."""

import subprocess
import sys
import textwrap

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import load_checkpoint
from torch import nn

from mmdcn.checkpoints import rename_old_offset_keys
from mmdcn.engine import checkpoint

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

TYPES = ["mmdcn.DCN", "mmdcn.DCNv2"]
SCOPES = {"mmdet": "ResNet", "mmseg": "ResNetV1c"}


@pytest.fixture(params=SCOPES)
def scope(request):
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


def build_resnet(scope, dcn_type=None, **kwargs):
    if dcn_type is not None:
        kwargs.update(
            dcn=dict(type=dcn_type, deform_groups=1, fallback_on_stride=False),
            stage_with_dcn=(False, True, True, True),
        )
    cfg = dict(type=SCOPES[scope], depth=50, base_channels=8, stem_channels=8)
    return MODELS.build({**cfg, **kwargs})


def deform_convs(model):
    return {name: m for name, m in model.named_modules() if hasattr(m, "conv_offset")}


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )


def test_prefix_is_enough_to_find_the_layers():
    # In a fresh interpreter: nothing of mmdcn is imported before the look-up.
    result = run_python("""
        from mmengine.registry import MODELS
        from mmdet.registry import MODELS as DET_MODELS
        for registry in (MODELS, DET_MODELS):
            print(registry.get("mmdcn.DCN").__name__, registry.get("mmdcn.DCNv2").__name__)
    """)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["DeformConv2dPack", "ModulatedDeformConv2dPack"] * 2


@pytest.mark.parametrize(
    "module, blocked",
    [
        ("mmdcn.ops", ["mmdcn.checkpoints", "mmengine", "mmcv", "mmdet", "mmseg"]),
        ("mmdcn.checkpoints", ["mmdcn.ops", "mmengine", "mmcv", "mmdet", "mmseg"]),
        ("mmdcn.models", ["mmdcn.engine", "mmcv", "mmdet", "mmseg"]),
        ("mmdcn.engine", ["mmdcn.models", "mmcv", "mmdet", "mmseg"]),
        ("mmdcn.engine.sharding", ["mmdcn.models", "mmcv", "mmdet", "mmseg"]),
        ("mmdcn.engine.launch", ["mmdcn.models", "mmdet", "mmseg"]),
    ],
)
def test_layers_import_without_those_above(module, blocked):
    result = run_python(f"""
        import sys
        sys.modules.update(dict.fromkeys({blocked!r}))  # None makes an import fail
        import {module}
    """)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("dcn_type", TYPES)
def test_replaces_conv2_of_the_chosen_stages_only(scope, dcn_type):
    model = build_resnet(scope, dcn_type)
    assert set(deform_convs(model)) == {
        f"layer{stage}.{block}.conv2"
        for stage, blocks in ((2, 4), (3, 6), (4, 3))
        for block in range(blocks)
    }


@pytest.mark.parametrize("dcn_type, tap_weight", [("mmdcn.DCN", 1.0), ("mmdcn.DCNv2", 0.5)])
def test_untrained_offsets_give_the_plain_network(scope, dcn_type, tap_weight):
    # Zero offsets sample the regular grid, and a zero mask logit weights every tap by one half.
    # init_weights() runs the ResNet's Kaiming initialisation, which must not reach conv_offset.
    # Residual branches end in a norm with weight 0 by default, which would hide them.
    model = build_resnet(scope, dcn_type, zero_init_residual=False)
    model.init_weights()
    convs = deform_convs(model)
    for conv in convs.values():
        assert not conv.conv_offset.weight.any() and not conv.conv_offset.bias.any()
        assert conv.weight.std() > 0
    plain = build_resnet(scope)
    state = {k: v for k, v in model.state_dict().items() if "conv_offset" not in k}
    for name in convs:
        state[f"{name}.weight"] = state[f"{name}.weight"] * tap_weight
    plain.load_state_dict(state)
    image = torch.randn(2, 3, 64, 72, dtype=torch.float64)
    for m in (model, plain):
        m.double().eval()
    with torch.no_grad():
        outputs, expected = model(image), plain(image)
    assert [o.shape[2:] for o in outputs] == [(16, 18), (8, 9), (4, 5), (2, 3)]
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference)


@pytest.mark.parametrize("dcn_type", TYPES)
def test_backward_reaches_every_parameter(scope, dcn_type):
    model = build_resnet(scope, dcn_type, with_cp=True)
    for conv in deform_convs(model).values():
        nn.init.normal_(conv.conv_offset.weight, std=0.05)
    image = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(o.square().mean() for o in model(image)).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert [n for n, g in grads.items() if g is None or not g.isfinite().all()] == []
    assert all(grads[f"{name}.conv_offset.weight"].any() for name in deform_convs(model))


@pytest.mark.parametrize("dcn_type", TYPES)
def test_frozen_stages_freeze_the_offsets_too(scope, dcn_type):
    model = build_resnet(scope, dcn_type, frozen_stages=2)
    trainable = {
        name: {p.requires_grad for p in m.parameters()} for name, m in deform_convs(model).items()
    }
    assert {n for n, grad in trainable.items() if grad == {False}} == {
        f"layer2.{i}.conv2" for i in range(4)
    }
    assert {n for n, grad in trainable.items() if grad == {True}} == {
        n for n in trainable if not n.startswith("layer2")
    }


def torch_load(model, state_dict, path):
    model.load_state_dict(rename_old_offset_keys(state_dict, model.state_dict()), strict=True)


def mmengine_load(model, state_dict, path):
    torch.save(dict(state_dict=state_dict, meta={}), path)
    load_checkpoint(model, str(path), strict=True)


@pytest.mark.parametrize("load", [torch_load, mmengine_load])
@pytest.mark.parametrize("dcn_type", TYPES)
def test_loads_checkpoints_with_the_old_offset_keys(scope, dcn_type, load, tmp_path, monkeypatch):
    # what checkpoint.install() does to the whole process
    monkeypatch.setattr(mmengine_checkpoint, "load_state_dict", checkpoint.load_state_dict)
    model = build_resnet(scope, dcn_type)
    new = {key: torch.rand_like(value.float()) for key, value in model.state_dict().items()}
    old = {key.replace(".conv_offset.", "_offset."): value for key, value in new.items()}
    assert "layer2.0.conv2_offset.weight" in old
    assert not set(old) <= set(new)
    for state_dict in (old, new):
        model.apply(lambda m: [p.data.zero_() for p in m.parameters()])
        load(model, state_dict, tmp_path / "checkpoint.pth")
        loaded = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        assert all(torch.equal(loaded[key], new[key]) for key in loaded)
