"""Learning rates and weight decays of the layer-wise constructor."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmdcn.models  # noqa: F401


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
        self.level_embed = nn.Parameter(torch.zeros(4, 8))
        self.encoder = nn.ModuleDict({"sampling_offsets": nn.Linear(8, 8), "ffn": nn.Linear(8, 8)})
        self.decode_head = nn.ModuleDict(
            {"query_feat": nn.Embedding(10, 8), "cls_embed": nn.Linear(8, 4), "fc": nn.Linear(8, 4)}
        )


def settings(model, constructor="mmdcn.LayerDecayOptimWrapperConstructor", **paramwise_cfg):
    """Name -> (factor on the learning rate, weight decay)."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor=constructor,
            optimizer=dict(type="AdamW", lr=2.0, weight_decay=0.05),
            paramwise_cfg=paramwise_cfg,
        ),
    )
    names = {id(p): n for n, p in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        assert group["lr"] == pytest.approx(2.0 * group["lr_scale"])
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr_scale"], group["weight_decay"])
    assert len(found) == sum(len(g["params"]) for g in wrapper.optimizer.param_groups)
    return found


def intern_image(name="InternImage", **kwargs):
    with torch.device("meta"):
        return Detector(MODELS.build(dict(type=f"mmdcn.{name}", **kwargs)))


def official_exponent(name, depths):
    """How many times the decay applies to a parameter of the backbone."""
    total = sum(depths)
    parts = name.split(".")[1:]
    if parts[0] == "patch_embed":
        return total + 1
    level = int(parts[1])
    before = sum(depths[:level])
    if parts[2] in ("blocks", "post_norms"):
        return total + 1 - (1 + before + int(parts[3]))
    if level == 3:
        return depths[3]
    return total + 1 - (1 + before + depths[level])


@pytest.mark.parametrize(
    "name, arch, depths, stem",
    [
        ("InternImage", "tiny", (4, 4, 18, 4), 0.0382),
        ("InternImage", "base", (4, 4, 21, 4), 0.0278),
        ("FlashInternImage", "large", (5, 5, 22, 5), 0.0182),
        ("InternImage", "huge", (6, 6, 32, 6), 0.0046),
    ],
)
def test_learning_rates_of_the_official_rule(name, arch, depths, stem):
    found = settings(intern_image(name, arch=arch), layer_decay_rate=0.9)
    assert found["backbone.patch_embed.conv1.weight"][0] == pytest.approx(stem, rel=0.01)
    assert found["backbone.levels.3.blocks.3.mlp.fc1.weight"][0] == pytest.approx(
        0.9 ** (depths[3] - 3)
    )
    for key, (scale, _) in found.items():
        if key.startswith("backbone."):
            assert scale == pytest.approx(0.9 ** official_exponent(key, depths)), key


def test_learning_rates_outside_the_backbone():
    found = settings(intern_image(arch="tiny"), layer_decay_rate=0.9)
    outside = {k: v[0] for k, v in found.items() if not k.startswith("backbone.")}
    stem = 0.9**31
    first = ("level_embed", "decode_head.query_feat", "decode_head.cls_embed")
    for key, scale in outside.items():
        assert scale == pytest.approx(stem if key.startswith(first) else 1.0), key


def test_no_weight_decay_for_norms_biases_vectors_and_sampling_offsets():
    found = settings(intern_image(arch="huge"), layer_decay_rate=0.9)
    decays = {k: v[1] for k, v in found.items()}
    assert set(decays.values()) == {0.0, 0.05}
    block = "backbone.levels.0.blocks.0"
    for key in (f"{block}.norm1.0.weight", f"{block}.dcn.offset.bias", f"{block}.mlp.fc1.bias",
                f"{block}.dcn.center_feature_scale_proj_bias", "neck.1.weight", "neck.0.bias",
                "encoder.sampling_offsets.weight", f"{block}.res_post_norm1.0.weight",
                "backbone.levels.2.post_norms.0.0.weight"):  # fmt: skip
        assert decays[key] == 0.0, key
    for key in (f"{block}.dcn.offset.weight", f"{block}.dcn.center_feature_scale_proj_weight",
                "backbone.patch_embed.conv1.weight", "neck.0.weight", "level_embed",
                "encoder.ffn.weight", "decode_head.query_feat.weight"):  # fmt: skip
        assert decays[key] == 0.05, key


@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_offset_scale_reaches_deformable_attention_and_dcnv4_only(name):
    model = intern_image(name, arch="small")
    plain = settings(model, layer_decay_rate=0.9)
    scaled = settings(model, layer_decay_rate=0.9, offset_lr_scale=0.01)
    changed = {key for key in plain if scaled[key][0] != pytest.approx(plain[key][0])}
    expected = {f"encoder.sampling_offsets.{leaf}" for leaf in ("weight", "bias")}
    if name == "FlashInternImage":
        expected |= {key for key in plain if ".dcn.offset_mask." in key}
        assert len(expected) == 2 + 2 * 33
    assert changed == expected
    assert all(scaled[key][0] == pytest.approx(0.01 * plain[key][0]) for key in changed)


def test_a_rate_of_one_changes_no_learning_rate():
    found = settings(intern_image(arch="tiny"), layer_decay_rate=1.0)
    assert {scale for scale, _ in found.values()} == {1.0}


def test_frozen_parameters_are_left_out():
    found = settings(intern_image(arch="tiny", frozen_stages=2), layer_decay_rate=0.9)
    assert not any(key.startswith(("backbone.levels.0.", "backbone.levels.1.")) for key in found)
    assert "backbone.patch_embed.conv1.weight" in found


def test_resnet_decays_by_block():
    pytest.importorskip("mmdet")
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        model = Detector(MODELS.build(dict(type="ResNet", depth=50)))
    found = settings(model, layer_decay_rate=0.9)
    exponents = {"conv1.weight": 17, "bn1.bias": 17, "layer1.0.conv1.weight": 16,
                 "layer1.0.downsample.0.weight": 16, "layer1.2.bn3.weight": 14,
                 "layer3.0.conv2.weight": 9, "layer4.2.conv3.weight": 1}  # fmt: skip
    for key, exponent in exponents.items():
        assert found[f"backbone.{key}"][0] == pytest.approx(0.9**exponent), key
    assert found["neck.0.weight"][0] == 1.0


def test_swin_decays_by_stage():
    pytest.importorskip("mmdet")
    cfg = dict(type="SwinTransformer", embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1))
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = Detector(MODELS.build(cfg))
    found = settings(model, layer_decay_rate=0.9)
    exponents = {"patch_embed.projection.weight": 5, "stages.0.blocks.0.ffn.layers.1.weight": 4,
                 "stages.2.blocks.1.attn.w_msa.qkv.weight": 2, "stages.3.blocks.0.norm1.weight": 1,
                 "norm3.weight": 0}  # fmt: skip
    for key, exponent in exponents.items():
        assert found[f"backbone.{key}"][0] == pytest.approx(0.9**exponent), key


@pytest.mark.parametrize(
    "paramwise_cfg, match",
    [
        (dict(), "paramwise_cfg: expected layer_decay_rate .*got nothing"),
        (dict(layer_decay_rate=0.9, num_layers=30), "got layer_decay_rate, num_layers"),
        (dict(layer_decay_rate=1.5), r"layer_decay_rate: expected a number in \(0, 1\], got 1.5"),
    ],
)
def test_wrong_arguments(paramwise_cfg, match):
    with pytest.raises(ValueError, match=match):
        settings(intern_image(arch="tiny"), **paramwise_cfg)


def test_model_without_layers_is_an_error():
    with pytest.raises(ValueError, match="Sequential has no backbone"):
        settings(nn.Sequential(nn.Linear(2, 2)), layer_decay_rate=0.9)
    with pytest.raises(ValueError, match="Conv2d has neither a method get_layer_depth nor blocks"):
        settings(Detector(nn.Conv2d(3, 4, 3)), layer_decay_rate=0.9)


@pytest.mark.parametrize("arch, depths", [("tiny", (4, 4, 18, 4)), ("huge", (6, 6, 32, 6))])
def test_classifiers_have_a_rule_of_their_own(arch, depths):
    model = intern_image(arch=arch)
    model.head = nn.Linear(8, 4, device="meta")
    found = settings(
        model,
        constructor="mmdcn.ClassifierLayerDecayOptimWrapperConstructor",
        layer_decay_rate=0.9,
        offset_lr_scale=0.1,
    )
    # Blocks from the last one on, as the official script numbers them, then what they hold.
    order = [
        f"backbone.levels.{level}.blocks.{block}."
        for level in (3, 2, 1, 0)
        for block in reversed(range(depths[level]))
    ]
    owner = {"backbone.patch_embed.": len(order) - 1}
    owner |= {prefix: exponent for exponent, prefix in enumerate(order)}
    for level in range(3):
        following = owner[f"backbone.levels.{level + 1}.blocks.0."]
        owner |= {f"backbone.levels.{level}.{part}.": following for part in ("norm", "downsample")}
    assert len(found) == len(list(model.named_parameters()))
    for name, (scale, decay) in found.items():
        exponent = next((e for prefix, e in owner.items() if name.startswith(prefix)), 0)
        offset = "offset" in name or "center_feature_scale_proj" in name
        assert scale == pytest.approx(0.9**exponent * (0.1 if offset else 1)), name
        parameter = model.get_parameter(name)
        if "sampling_offsets" not in name:
            assert decay == (0 if parameter.ndim == 1 else 0.05), name
