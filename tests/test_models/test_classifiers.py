"""InternImage's classifiers: totals, keys, the pooling against loops, a small one that learns."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.registry import MODELS
from torch import nn

import mmdcn.models  # noqa: F401
from mmdcn.models.classifiers import PooledClassifier
from mmdcn.models.necks import CLIPProjector, ConvPooling

# Parameters and tensors of the official models with 1000 classes; parameters with 21841.
TOTALS = {
    ("InternImage", "tiny"): (29_918_424, 633, 45_945_153),
    ("InternImage", "small"): (50_079_880, 751, 70_108_081),
    ("InternImage", "base"): (97_461_832, 751, 125_492_977),
    ("InternImage", "large"): (223_334_810, 839, 263_370_371),
    ("InternImage", "xlarge"): (334_819_780, 883, 382_858_285),
    ("InternImage", "huge"): (1_089_636_760, 1357, 1_105_663_489),
    ("InternImage", "giant"): (3_076_373_352, 1295, 3_092_400_081),
    ("FlashInternImage", "tiny"): (29_815_528, 393, None),
    ("FlashInternImage", "small"): (50_067_496, 553, None),
    ("FlashInternImage", "base"): (97_448_960, 553, None),
    ("FlashInternImage", "large"): (223_297_080, 691, None),
}
HEAD = {  # official keys and shapes, with C channels at the first level and K inputs of the head
    "conv_head.0.weight": "K,8C,1,1",
    "conv_head.1.0.weight": "K",
    "conv_head.1.0.bias": "K",
    "conv_head.1.0.running_mean": "K",
    "conv_head.1.0.running_var": "K",
    "conv_head.1.0.num_batches_tracked": "",
}
CLIP_HEAD = {
    "dcnv3_head_x4.0.weight": "4096,8C,1,1",
    "dcnv3_head_x4.0.bias": "4096",
    "dcnv3_head_x3.weight": "1024,4C,1,1",
    "dcnv3_head_x3.bias": "1024",
    **{f"clip_projector.norm1_{n}.0.{leaf}": "1024" for n in "qkv" for leaf in ("weight", "bias")},
    **{f"clip_projector.cross_dcn.{n}.weight": "1024,1024" for n in "qkv"},
    **{f"clip_projector.cross_dcn.{n}_bias": "1024" for n in "qkv"},
    "clip_projector.cross_dcn.proj.weight": "768,1024",
    "clip_projector.cross_dcn.proj.bias": "768",
    "fc_norm.0.weight": "768",
    "fc_norm.0.bias": "768",
}


def parts(name, arch):
    """Backbone and neck of an official classifier, and the number of inputs of its head."""
    clip = arch in ("huge", "giant")
    scale = {} if clip else dict(layer_scale=None if arch == "tiny" else 1e-5)
    with torch.device("meta"):
        backbone = MODELS.build(dict(type=f"mmdcn.{name}", arch=arch, **scale))
        channels = backbone.settings.channels
        if clip:
            return backbone, CLIPProjector((4 * channels, 8 * channels)), 768
        width = int(8 * channels * 1.5)
        return backbone, ConvPooling(8 * channels, width), width


@pytest.mark.parametrize(("name", "arch"), TOTALS)
def test_totals_and_keys_of_the_official_classifiers(name, arch):
    backbone, neck, width = parts(name, arch)
    size = sum(p.numel() for p in [*backbone.parameters(), *neck.parameters()])
    parameters, tensors, with_more = TOTALS[name, arch]
    assert size + 1000 * (width + 1) == parameters
    assert with_more in (None, size + 21841 * (width + 1))
    assert len(backbone.state_dict()) + len(neck.state_dict()) + 2 == tensors
    expected = CLIP_HEAD if arch in ("huge", "giant") else HEAD
    letters = {"K": width, **{f"{n}C": n * backbone.settings.channels for n in (4, 8)}}
    assert {key: tuple(value.shape) for key, value in neck.state_dict().items()} == {
        key: tuple(letters.get(side) or int(side) for side in shape.split(",") if side)
        for key, shape in expected.items()
    }


@pytest.mark.parametrize("folder", ["internimage", "flash_internimage"])
def test_metafiles_say_these_sizes(folder):
    path = Path(__file__).parents[2] / "configs" / folder / "metafile.yml"
    models = yaml.safe_load(path.read_text())["Models"]
    told = [m["Metadata"]["Parameters"] for m in models if "_in1k" in m["Name"]]
    name = {"internimage": "InternImage", "flash_internimage": "FlashInternImage"}[folder]
    assert told == [total for (kind, _), (total, *_) in TOTALS.items() if kind == name]


def test_conv_pooling_is_the_mean_of_activated_pixels():
    torch.manual_seed(0)
    neck = ConvPooling(6, 9).double().eval()
    norm = neck.conv_head[1][0]
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    maps = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    (vector,) = neck((None, maps))
    weight = neck.conv_head[0].weight[:, :, 0, 0]
    for n in range(2):
        total = 0
        for y in range(3):
            for x in range(5):
                value = weight @ maps[n, :, y, x]
                value = (value - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
                value = value * norm.weight + norm.bias
                total = total + value * 0.5 * (1 + torch.erf(value / math.sqrt(2)))
        torch.testing.assert_close(vector[n], total / 15)


def layer_norm(layer, x):
    (norm,) = layer
    x = (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()
    return x * norm.weight + norm.bias


def test_clip_projector_against_loops():
    torch.manual_seed(0)
    neck = CLIPProjector((3, 5), embed_dim=8, heads=2, out_channels=6).double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter, std=0.5)
    x3 = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    x4 = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    (found,) = neck((x3, x4))
    wide, narrow = neck.dcnv3_head_x4[0], neck.dcnv3_head_x3
    attention, pooling = neck.clip_projector.cross_dcn, neck.clip_projector
    for n in range(2):
        tokens = []
        for y in range(4):
            for x in range(6):
                four = wide.weight[:, :, 0, 0] @ x4[n, :, y // 2, x // 2] + wide.bias
                one = four.view(8, 2, 2)[:, y % 2, x % 2]
                tokens.append(one + narrow.weight[:, :, 0, 0] @ x3[n, :, y, x] + narrow.bias)
        mean = sum(tokens) / len(tokens)
        q = attention.q.weight @ layer_norm(pooling.norm1_q, mean) + attention.q_bias
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            weights, values = [], []
            for token in tokens:
                k = attention.k.weight @ layer_norm(pooling.norm1_k, token) + attention.k_bias
                v = attention.v.weight @ layer_norm(pooling.norm1_v, token) + attention.v_bias
                weights.append((q[head] @ k[head] / 2).exp())
                values.append(v[head])
            total = sum(weights)
            heads.append(sum(w / total * v for w, v in zip(weights, values, strict=True)))
        vector = attention.proj.weight @ torch.cat(heads) + attention.proj.bias
        torch.testing.assert_close(found[n], layer_norm(neck.fc_norm, vector))


def test_clip_projector_names_a_wrong_size():
    with torch.device("meta"):
        neck = CLIPProjector((3, 5), embed_dim=8, heads=2)
        with pytest.raises(ValueError, match=r"multiples of 32, got maps of \(5, 6\) and \(3, 3\)"):
            neck((torch.zeros(1, 3, 5, 6), torch.zeros(1, 5, 3, 3)))


def test_pooled_classifier_learns():
    torch.manual_seed(0)
    model = PooledClassifier(
        dict(type="mmdcn.InternImage", channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8)),
        in_channels=128,
        num_classes=2,
    )
    labels = [0, 1, 1, 0]
    images = torch.randn(4, 3, 32, 32) * 0.1
    images[1:3, 0] += 1
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(10):
        losses = model(images, labels, mode="loss")
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"] < 0.1 and losses["accuracy"] == 1
    answers = model.eval()(images, labels, mode="predict")
    assert answers == [dict(answer=label, label=label) for label in labels]
    assert model(images).shape == (4, 2)
