"""InternImage and FlashInternImage: sizes and state-dict keys of the published models."""

import pytest
import torch
from mmengine.registry import MODELS

import mmdcn.models  # noqa: F401

# Of every published size: channels, depths, groups, and what sets it apart.
SIZES = {
    "tiny": (64, (4, 4, 18, 4), (4, 8, 16, 32)),
    "small": (80, (4, 4, 21, 4), (5, 10, 20, 40)),
    "base": (112, (4, 4, 21, 4), (7, 14, 28, 56)),
    "large": (160, (5, 5, 22, 5), (10, 20, 40, 80)),
    "xlarge": (192, (5, 5, 24, 5), (12, 24, 48, 96)),
    "huge": (320, (6, 6, 32, 6), (10, 20, 40, 80)),
    "giant": (512, (2, 2, 48, 4), (16, 32, 64, 128)),
}
# Parameters and tensors of the official backbones.
TOTALS = {
    ("InternImage", "tiny"): (28_769_520, 685),
    ("InternImage", "small"): (48_502_560, 743),
    ("InternImage", "base"): (94_909_920, 743),
    ("InternImage", "large"): (218_952_370, 831),
    ("InternImage", "xlarge"): (328_971_228, 875),
    ("InternImage", "huge"): (1_073_122_480, 1335),
    ("InternImage", "giant"): (3_052_781_184, 1273),
    ("FlashInternImage", "tiny"): (28_666_624, 445),
    ("FlashInternImage", "small"): (48_490_176, 545),
    ("FlashInternImage", "base"): (94_897_048, 545),
    ("FlashInternImage", "large"): (218_914_640, 683),
}


def build(name, arch):
    with torch.device("meta"):
        return MODELS.build(dict(type=f"mmdcn.{name}", arch=arch))


@pytest.mark.parametrize("name, arch", TOTALS)
def test_sizes_of_the_published_models(name, arch):
    model = build(name, arch)
    parameters = sum(p.numel() for p in model.parameters())
    assert (parameters, len(model.state_dict())) == TOTALS[name, arch]


def official_keys(name, arch):
    """Keys and shapes of the official state dict, from the rules that its files follow."""
    flash, (channels, depths, groups) = name == "FlashInternImage", SIZES[arch]
    big = arch in ("huge", "giant")
    keys = {}

    def add(key, *shape, bias=True):
        keys[f"{key}.weight"] = shape
        if bias:
            keys[f"{key}.bias"] = shape[:1]

    add("patch_embed.conv1", channels // 2, 3, 3, 3)
    add("patch_embed.norm1.1", channels // 2)
    add("patch_embed.conv2", channels, channels // 2, 3, 3)
    add("patch_embed.norm2.1", channels)
    for i, (depth, group) in enumerate(zip(depths, groups, strict=True)):
        c = channels * 2**i
        for j in range(depth):
            block = f"levels.{i}.blocks.{j}"
            if not big:
                keys[f"{block}.gamma1"] = keys[f"{block}.gamma2"] = (c,)
            add(f"{block}.norm1.0", c)
            add(f"{block}.norm2.0", c)
            add(f"{block}.mlp.fc1", 4 * c, c)
            add(f"{block}.mlp.fc2", c, 4 * c, bias=not flash or arch == "large")
            if flash:
                if arch != "tiny":
                    add(f"{block}.dcn.offset_mask_dw", c, 1, 3, 3)
                add(f"{block}.dcn.offset_mask", 8 * -(-27 * group // 8), c)
                add(f"{block}.dcn.value_proj", c, c)
                add(f"{block}.dcn.output_proj", c, c, bias=arch == "large")
            else:
                side = 5 if big else 3
                add(f"{block}.dcn.dw_conv.0", c, 1, side, side)
                add(f"{block}.dcn.dw_conv.1.1", c)
                add(f"{block}.dcn.offset", group * 18, c)
                add(f"{block}.dcn.mask", group * 9, c)
                add(f"{block}.dcn.input_proj", c, c)
                add(f"{block}.dcn.output_proj", c, c)
            if big:
                keys[f"{block}.dcn.center_feature_scale_proj_weight"] = (group, c)
                keys[f"{block}.dcn.center_feature_scale_proj_bias"] = (group,)
            if arch == "huge":
                add(f"{block}.res_post_norm1.0", c)
                add(f"{block}.res_post_norm2.0", c)
        if arch in ("tiny", "huge", "giant"):
            add(f"levels.{i}.norm.0", c)
        if i == 2 and big:
            for k in range({"huge": 5, "giant": 8}[arch]):
                add(f"levels.2.post_norms.{k}.0", c)
        if i < 3:
            add(f"levels.{i}.downsample.conv", 2 * c, c, 3, 3, bias=False)
            add(f"levels.{i}.downsample.norm.1", 2 * c)
    return keys


@pytest.mark.parametrize("name, arch", TOTALS)
def test_state_dict_keys_of_the_published_models(name, arch):
    model = build(name, arch)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == official_keys(name, arch)
