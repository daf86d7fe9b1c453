"""InternImage and FlashInternImage: outputs, gradients and options."""

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn import functional as F

import mmdcn.models  # noqa: F401
from mmdcn.ops import reference


def build(name="InternImage", **kwargs):
    return MODELS.build(dict(type=f"mmdcn.{name}", **kwargs))


def plain_forward(p, image, cfg):
    """The official network on the reference operators, as a function of its state dict `p`."""

    def linear(x, key):
        return F.linear(x, p[f"{key}.weight"], p.get(f"{key}.bias"))

    def norm(x, key):
        return F.layer_norm(x, x.shape[-1:], p[f"{key}.weight"], p[f"{key}.bias"], eps=1e-6)

    def conv(x, key, **kwargs):  # channels last in and out
        x = F.conv2d(x.movedim(-1, 1), p[f"{key}.weight"], p.get(f"{key}.bias"), **kwargs)
        return x.movedim(1, -1)

    def softmax_per_group(mask, group):
        return mask.unflatten(-1, (group, -1)).softmax(-1).flatten(-2)

    def core(x, key, group):
        c = x.shape[-1]
        scale = cfg.get("offset_scale", 1.0)
        if cfg["flash"]:
            query = x
            if f"{key}.offset_mask_dw.weight" in p:
                query = conv(x, f"{key}.offset_mask_dw", padding=1, groups=c)
            value, offset_mask = linear(x, f"{key}.value_proj"), linear(query, f"{key}.offset_mask")
            y = reference.dcnv4(value, offset_mask, groups=group, offset_scale=scale)
            return linear(y, f"{key}.output_proj")
        side = p[f"{key}.dw_conv.0.weight"].shape[-1]
        query = conv(x, f"{key}.dw_conv.0", padding=side // 2, groups=c)
        query = F.gelu(norm(query, f"{key}.dw_conv.1.1"))
        value = linear(x, f"{key}.input_proj")
        y = reference.dcnv3(
            value,
            linear(query, f"{key}.offset"),
            softmax_per_group(linear(query, f"{key}.mask"), group),
            groups=group,
            offset_scale=scale,
            remove_center=cfg.get("remove_center", False),
        )
        if cfg.get("center_feature_scale"):
            gate = F.linear(
                query,
                p[f"{key}.center_feature_scale_proj_weight"],
                p[f"{key}.center_feature_scale_proj_bias"],
            ).sigmoid()
            gate = gate.repeat_interleave(c // group, -1)
            y = y * (1 - gate) + value * gate
        return linear(y, f"{key}.output_proj")

    def mlp(x, key):
        return linear(F.gelu(linear(x, f"{key}.fc1")), f"{key}.fc2")

    def branch(x, f, norm_key, gamma_key, res_key):
        if cfg.get("layer_scale") is not None:
            y = norm(f(x), norm_key) if cfg.get("post_norm") else f(norm(x, norm_key))
            return x + p[gamma_key] * y
        if cfg.get("post_norm"):
            return x + norm(f(x), norm_key)
        y = f(norm(x, norm_key))
        return x + (norm(y, res_key) if cfg.get("res_post_norm") else y)

    x = conv(image.movedim(1, -1), "patch_embed.conv1", stride=2, padding=1)
    x = F.gelu(norm(x, "patch_embed.norm1.1"))
    x = norm(conv(x, "patch_embed.conv2", stride=2, padding=1), "patch_embed.norm2.1")
    outputs = []
    for i, depth in enumerate(cfg["depths"]):
        for j in range(depth):
            b = f"levels.{i}.blocks.{j}"
            group = cfg["groups"][i]
            x = branch(
                x, lambda t, b=b, g=group: core(t, f"{b}.dcn", g),
                f"{b}.norm1.0", f"{b}.gamma1", f"{b}.res_post_norm1.0",
            )  # fmt: skip
            x = branch(
                x, lambda t, b=b: mlp(t, f"{b}.mlp"),
                f"{b}.norm2.0", f"{b}.gamma2", f"{b}.res_post_norm2.0",
            )  # fmt: skip
            ids = cfg.get("level2_post_norm_block_ids", ()) if i == 2 else ()
            if j in ids:
                x = norm(x, f"levels.2.post_norms.{ids.index(j)}.0")
        if not cfg.get("post_norm") or cfg.get("center_feature_scale"):
            x = norm(x, f"levels.{i}.norm.0")
        outputs.append(x.movedim(-1, 1))
        if i < 3:
            x = conv(x, f"levels.{i}.downsample.conv", stride=2, padding=1)
            x = norm(x, f"levels.{i}.downsample.norm.1")
    return outputs


NARROW = dict(channels=16, depths=(1, 1, 3, 1), groups=(2, 4, 4, 8))
# Narrow, shallow copies with the switches of the published models, and of the others that exist.
STRUCTURES = {
    "tiny": dict(layer_scale=1.0),
    "small": dict(layer_scale=1.0, post_norm=True),
    "large": dict(layer_scale=1.0, post_norm=True, offset_scale=2.0),
    "huge": dict(
        dw_kernel_size=5,
        res_post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=(0, 2),
        center_feature_scale=True,
    ),
    "giant": dict(
        dw_kernel_size=5,
        post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=(1, 2),
        center_feature_scale=True,
    ),
    "classifier": dict(remove_center=True),
    "ignored res_post_norm": dict(res_post_norm=True, layer_scale=1.0),
    "flash tiny": dict(flash=True, layer_scale=1.0, offset_scale=1.0),
    "flash base": dict(flash=True, layer_scale=1.0, post_norm=True, dw_kernel_size=3),
    "flash large": dict(
        flash=True,
        layer_scale=1.0,
        post_norm=True,
        dw_kernel_size=3,
        offset_scale=2.0,
        dcn_output_bias=True,
        mlp_fc2_bias=True,
    ),
    "flash without layer_scale": dict(flash=True),
}


def randomise(model):
    """Values for which every parameter matters: the constructor leaves many at 0 or 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_forward_and_backward_equal_a_plain_model(structure, dtype, tolerance):
    torch.manual_seed(0)
    cfg = {"flash": False, **NARROW, **STRUCTURES[structure]}
    name = "FlashInternImage" if cfg["flash"] else "InternImage"
    model = build(name, **{k: v for k, v in cfg.items() if k != "flash"}, drop_path_rate=0.0)
    randomise(model)
    model.to(dtype)
    if cfg["flash"]:
        cfg.setdefault("offset_scale", 0.5)
    image = torch.randn(2, 3, 40, 56, dtype=dtype)
    parameters = dict(model.named_parameters())
    outputs, expected = model(image), plain_forward(parameters, image, cfg)
    cotangents = [torch.randn_like(o) for o in expected]
    used = [
        p for key, p in parameters.items() if cfg.get("layer_scale") is None or "res_" not in key
    ]
    grads, expected_grads = (torch.autograd.grad(o, used, cotangents) for o in (outputs, expected))
    sizes = [(16, 10, 14), (32, 5, 7), (64, 3, 4), (128, 2, 2)]
    assert [tuple(o.shape[1:]) for o in outputs] == sizes
    assert all(o.is_contiguous() for o in outputs)
    for actual, plain in zip([*outputs, *grads], [*expected, *expected_grads], strict=True):
        assert (actual - plain).norm() <= tolerance * plain.norm()


@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_starts_without_deformation(name):
    model = build(name, **NARROW)
    model.init_weights()  # leaves the constructor's values
    layers = [block.dcn for level in model.levels for block in level.blocks]
    for layer in layers:
        for part in [layer.offset, layer.mask] if name == "InternImage" else [layer.offset_mask]:
            assert not part.weight.any() and not part.bias.any()
        assert layer.output_proj.weight.std() > 0.02
    assert 0.015 < model.levels[3].blocks[0].mlp.fc1.weight.std() < 0.025


def test_drop_path_rates():
    def rates(**kwargs):
        model = build(**NARROW, **kwargs)
        return [b.drop_path.rate for level in model.levels for b in level.blocks]

    assert rates(drop_path_rate=0.5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates(drop_path_rate=0.3, drop_path_type="uniform") == [0.3] * 6


def test_drop_path_drops_whole_samples():
    torch.manual_seed(0)
    drop = build(**NARROW).levels[3].blocks[0].drop_path
    x = torch.ones(4000, 2, 3, 5)
    dropped = drop.train()(x).flatten(1)
    assert torch.equal(dropped.min(1).values, dropped.max(1).values)
    assert sorted(set(dropped[:, 0].tolist())) == pytest.approx([0, 1.25])
    assert (dropped[:, 0] == 0).float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


def test_frozen_stages_stay_in_evaluation_mode():
    model = build(**NARROW, frozen_stages=2)
    assert model.train() is model
    assert [level.training for level in model.levels] == [False, False, True, True]
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in model.named_parameters() if n.startswith(("levels.0.", "levels.1."))
    }
    assert all(p.requires_grad for p in build(**NARROW, frozen_stages=0).parameters())


@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_checkpointing_gives_the_same_gradients(name):
    image = torch.randn(2, 3, 64, 64)
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(name, **NARROW, with_cp=with_cp, drop_path_rate=0.5)
        randomise(model)
        torch.manual_seed(1)
        loss = sum(o.square().mean() for o in model(image))
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_autocast_stays_close_and_trains(name):
    torch.manual_seed(0)
    model = build(name, **NARROW, drop_path_rate=0.0)
    randomise(model)
    image = torch.randn(2, 3, 64, 64)
    expected = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(image)
    for actual, plain in zip(outputs, expected, strict=True):
        assert (actual - plain).norm() < 0.05 * plain.norm()
    sum(o.float().square().mean() for o in outputs).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_compiles_as_one_graph(name):
    torch.manual_seed(0)
    model = build(name, **{**NARROW, "depths": (1, 1, 1, 1)}).eval()
    randomise(model)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)(image)
        for actual, eager in zip(compiled, model(image), strict=True):
            torch.testing.assert_close(actual, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_published_model_is_one_graph(name):
    torch.manual_seed(0)
    model = build(name, arch="tiny").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        # Traced and run as one graph; the code that the test above makes would take minutes here.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(image)
        for actual, eager in zip(compiled, model(image), strict=True):
            torch.testing.assert_close(actual, eager, rtol=1e-4, atol=1e-4)


def test_out_indices():
    image = torch.randn(1, 3, 64, 64)
    model = build(**NARROW).eval()
    chosen = build(**NARROW, out_indices=[1, 3]).eval()
    chosen.load_state_dict(model.state_dict())
    outputs = model(image)
    for actual, expected in zip(chosen(image), (outputs[1], outputs[3]), strict=True):
        assert torch.equal(actual, expected)


def test_norm_layer_bn_keys():
    # Batch norm works on channels first: the index in the key says where the norm stands.
    keys = set(build(**NARROW, norm_layer="BN").state_dict())
    for key in ("patch_embed.norm1.0", "patch_embed.norm2.0", "levels.0.downsample.norm.0",
                "levels.0.blocks.0.dcn.dw_conv.1.0"):  # fmt: skip
        assert f"{key}.running_mean" in keys
    assert "levels.0.blocks.0.norm1.0.weight" in keys
    assert not any("norm1" in key and "running" in key for key in keys if "blocks" in key)


@pytest.mark.parametrize(
    "kwargs, error, match",
    [
        (dict(arch="nano"), ValueError, r"arch: expected one of .*tiny.*, got 'nano'"),
        (dict(channel=64), TypeError, r"no argument channel; settings are .*channels"),
        (dict(depths=(1, 1, 1)), ValueError, r"expected 4 numbers each, got \(1, 1, 1\)"),
        (dict(channels=64, groups=(3, 6, 12, 24)), ValueError, r"channels: .* group \(3\), got 64"),
        (dict(core_op="DCNv5"), ValueError, "core_op: expected 'DCNv3' or 'DCNv4', got 'DCNv5'"),
        (dict(norm_layer="GN"), ValueError, r"norm_layer: .*'LN'.*got 'GN'"),
        (dict(act_layer="Tanh"), ValueError, r"act_layer: .*'GELU'.*got 'Tanh'"),
        (dict(drop_path_type="cosine"), ValueError, "drop_path_type: .*got 'cosine'"),
        (dict(out_indices=(0, 4)), ValueError, r"out_indices: .*got \(0, 4\)"),
        (dict(frozen_stages=5), ValueError, "frozen_stages: expected -1 to 4, got 5"),
        (
            dict(level2_post_norm=True, level2_post_norm_block_ids=(3,)),
            ValueError,
            r"level2_post_norm_block_ids: .*\(0 to 2\), got \(3,\)",
        ),
    ],
)
def test_wrong_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        build(**{**NARROW, **kwargs})


@pytest.mark.parametrize("name", ["InternImage", "FlashInternImage"])
def test_inference_gives_the_outputs_of_training(name, monkeypatch):
    # Without gradients, linear layers take another way and MLPs run on a few rows at a time.
    torch.manual_seed(0)
    model = build(name, **NARROW, layer_scale=1.0).eval()
    randomise(model)
    image = torch.randn(2, 3, 72, 96)
    expected = model(image)
    monkeypatch.setattr("mmdcn.models.backbones.intern_image_blocks.MLPLayer.tile", 5000)
    mlp, rows = model.levels[0].blocks[0].mlp, []
    mlp.fc1.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    with torch.no_grad():
        outputs = model(image)
    assert rows == [3] * 12  # of 2 x 18 rows with 24 pixels and 64 hidden values each
    for actual, plain in zip(outputs, expected, strict=True):
        assert actual.shape == plain.shape
        assert (actual - plain).norm() <= 1e-5 * plain.norm()
