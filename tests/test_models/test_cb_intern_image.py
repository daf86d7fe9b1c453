"""The composite backbone: sizes, keys and fusion of the official one."""

import pytest
import torch
from mmengine.registry import MODELS

import mmdcn.models  # noqa: F401

NARROW = dict(
    channels=16,
    depths=(1, 1, 2, 1),
    groups=(1, 2, 4, 8),
    res_post_norm=True,
    level2_post_norm=True,
    level2_post_norm_block_ids=(1,),
    center_feature_scale=True,
    drop_path_rate=0.0,
)


def build(name="CBInternImage", device="cpu", **kwargs):
    with torch.device(device):
        return MODELS.build(dict(type=f"mmdcn.{name}", **kwargs))


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_size_and_keys_of_the_published_model():
    model = build(device="meta", arch="huge")
    assert sum(p.numel() for p in model.parameters()) == 2_152_954_720
    one = shapes(build("InternImage", "meta", arch="huge"))
    expected = {f"cb_modules.0.{key}": shape for key, shape in one.items()}
    expected |= {
        f"cb_modules.1.{key}": shape
        for key, shape in one.items()
        if not key.startswith("patch_embed.")
    }
    channels = (320, 640, 1280, 2560)
    expected |= {f"cb_modules.1.gamma{i}": (c,) for i, c in enumerate(channels)}
    for i in range(4):
        for j in range(1, 4 - i):
            expected[f"cb_linears.{i}.{j}.weight"] = (channels[i], channels[i + j], 1, 1)
            expected[f"cb_linears.{i}.{j}.bias"] = (channels[i],)
    assert shapes(model) == expected


def randomise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def repeat(x, times):
    """Nearest neighbours of (N, H, W, C), `times` as large."""
    return x.repeat_interleave(times, 1).repeat_interleave(times, 2)


def plain_forward(model, image):
    """Both backbones level by level; what a level does is tested with InternImage."""
    first, second = model.cb_modules
    stem = first.patch_embed(image)
    found, x = [], stem
    for level in first.levels:
        x = level(x)
        found.append(x)
        x = level.downsample(x) if level.downsample else x
    results, x = [], stem
    for i, level in enumerate(second.levels):
        added = found[i]
        for j in range(1, 4 - i):
            linear = model.cb_linears[i][j]
            mapped = found[i + j] @ linear.weight[:, :, 0, 0].T + linear.bias
            added = added + repeat(mapped, 2**j)
        # the official model uses its gains in half precision
        gain = getattr(second, f"gamma{i}").to(torch.float16).to(added.dtype)
        x = level(x + gain * added)
        results.append(x)
        x = level.downsample(x) if level.downsample else x
    return [x.movedim(-1, 1) for x in found], [x.movedim(-1, 1) for x in results]


def test_forward_and_backward_equal_a_plain_model():
    torch.manual_seed(0)
    model = build(**NARROW, out_indices=(1, 2, 3)).double()
    randomise(model)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    first, second = plain_forward(model, image)
    expected = [torch.cat([a, b]) for a, b in zip(first[1:], second[1:], strict=True)]
    outputs = model.train()(image)
    assert [tuple(o.shape) for o in outputs] == [(4, 32, 8, 12), (4, 64, 4, 6), (4, 128, 2, 3)]
    parameters = list(model.parameters())
    cotangents = [torch.randn_like(o) for o in expected]
    grads, expected_grads = (
        torch.autograd.grad(o, parameters, cotangents) for o in (outputs, expected)
    )
    for actual, plain in zip([*outputs, *grads], [*expected, *expected_grads], strict=True):
        assert (actual - plain).norm() <= 1e-10 * plain.norm()
    for actual, plain in zip(model.eval()(image), second[1:], strict=True):
        assert (actual - plain).norm() <= 1e-10 * plain.norm()


def test_takes_images_of_any_size():
    assert [tuple(o.shape[2:]) for o in build(**NARROW).eval()(torch.randn(1, 3, 50, 70))] == [
        (13, 18),
        (7, 9),
        (4, 5),
        (2, 3),
    ]


def test_both_backbones_take_an_official_file(tmp_path):
    one = build("InternImage", **NARROW)
    weights = {key: torch.randn_like(value) for key, value in one.state_dict().items()}
    torch.save({"model": {**weights, "head.weight": torch.zeros(10, 4)}}, tmp_path / "file.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "file.pth"))
    model = build(**NARROW, init_cfg=init_cfg)
    model.init_weights()
    for part in model.cb_modules:
        own = part.state_dict()
        loaded = {key: value for key, value in own.items() if key in weights}
        assert all(torch.equal(value, weights[key]) for key, value in loaded.items())
        new = {f"gamma{i}" for i in range(4)} if part is model.cb_modules[1] else set()
        assert own.keys() - weights.keys() == new
    assert not any(getattr(model.cb_modules[1], f"gamma{i}").any() for i in range(4))


@pytest.mark.parametrize("name", ["cb_modules.0.patch_embed.conv1.weight", "cb_linears.0.1.bias"])
def test_all_parameters_learn_at_the_full_rate(name):
    model = build(**NARROW)
    assert name in dict(model.named_parameters())
    assert model.get_layer_depth(f"backbone.{name}", "backbone.") == (6, 7)
