"""mmdcn.SingleRoIExtractor and the registered RoI layers."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmdcn import ops
from mmdcn.models.layers.roi_extractor import SingleRoIExtractor

LAYERS = [
    "DeformPSRoIPool",
    "DeformPSRoIPoolPack",
    "DeformRoIPool",
    "DeformRoIPoolPack",
    "ModulatedDeformPSRoIPoolPack",
    "ModulatedDeformRoIPoolPack",
    "PSRoIPool",
    "RoIAvgPool",
]
STRIDES = [4, 8, 16, 32]


def pyramid(batch=2, channels=6, size=512):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, size // s, size // s, generator=generator).requires_grad_()
        for s in STRIDES
    ]


def example_rois(sizes=(20, 60, 110, 130, 200, 230, 300, 460, 500)):
    rois = [[i % 2, 3.3 * i, 2.7 * i, 3.3 * i + s, 2.7 * i + 0.8 * s] for i, s in enumerate(sizes)]
    return torch.tensor(rois)


def build(roi_layer, **kwargs):
    cfg = dict(
        type="mmdcn.SingleRoIExtractor",
        roi_layer=roi_layer,
        out_channels=6,
        featmap_strides=STRIDES,
    )
    return MODELS.build({**cfg, **kwargs})


def run(extractor, rois, *args):
    feats = pyramid()
    output = extractor(feats, rois, *args)
    output.backward(torch.sin(torch.arange(output.numel())).view_as(output))
    return output.detach(), [feat.grad for feat in feats]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_registered(name):
    assert MODELS.get(f"mmdcn.{name}") is getattr(ops, name)


@pytest.mark.parametrize("scope", ["mmengine", "mmdet"])
@pytest.mark.parametrize("name", ["mmdcn.DeformRoIPool", "DeformRoIPool", ops.DeformRoIPool])
def test_takes_a_layer_by_name_or_class(scope, name):
    with DefaultScope.overwrite_default_scope(scope):
        extractor = build(dict(type=name, output_size=3, sampling_ratio=1))
    assert [type(layer) for layer in extractor.roi_layers] == [ops.DeformRoIPool] * 4
    assert [layer.spatial_scale for layer in extractor.roi_layers] == [1 / s for s in STRIDES]
    assert extractor.num_inputs == 4


def test_unknown_layer():
    with pytest.raises(ValueError, match="roi_layer: expected .* got 'RoIPoll'"):
        build(dict(type="RoIPoll", output_size=3))


@pytest.mark.parametrize("scale", [None, 1.3])
@pytest.mark.parametrize("sizes", [(20, 60, 110, 130, 200, 230, 300, 460, 500), (50, 300), ()])
def test_pools_what_the_extractor_of_mmdet_pools(scale, sizes):
    pytest.importorskip("mmcv.ops")
    mmdet_extractors = pytest.importorskip("mmdet.models.roi_heads.roi_extractors")
    layer = dict(type="RoIAlign", output_size=(3, 2), sampling_ratio=2)
    theirs = mmdet_extractors.SingleRoIExtractor(layer, 6, STRIDES)
    rois = example_rois(sizes).reshape(-1, 5)
    output, grads = run(build(layer), rois, scale)
    # With mmcv's layer, and with ours, which is the same pooling.
    layer = dict(type="mmdcn.DeformRoIPool", output_size=(3, 2), sampling_ratio=2)
    own_output, own_grads = run(build(layer), rois, scale)
    if not sizes:  # mmdet's output is not in the graph then
        assert output.shape == own_output.shape == (0, 6, 3, 2)
        assert not any(grad.any() for grad in grads + own_grads)
        return
    expected, expected_grads = run(theirs, rois, scale)
    assert torch.equal(output, expected)
    torch.testing.assert_close(own_output, expected)
    for actual, own, grad in zip(grads, own_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, grad)
        torch.testing.assert_close(own, grad)


def test_levels_without_rois_stay_in_the_graph():
    layer = dict(type="mmdcn.ModulatedDeformRoIPoolPack", output_size=3, output_channels=6,
                 deform_fc_channels=8)  # fmt: skip
    extractor = build(layer)
    feats = pyramid()
    extractor(feats, example_rois((20, 130))).sum().backward()
    assert all(feat.grad is not None for feat in feats)
    assert [bool(feat.grad.any()) for feat in feats] == [True, True, False, False]
    assert all(p.grad is not None for p in extractor.parameters())


def test_a_map_that_is_not_finite_does_not_reach_rois_of_other_levels():
    feats = pyramid()
    feats[3] = torch.full_like(feats[3], float("inf"))
    extractor = build(dict(type="mmdcn.DeformRoIPool", output_size=3))
    assert extractor(feats, example_rois((20, 60))).isfinite().all()


def test_rois_keep_their_precision_beside_half_precision_maps():
    # In bfloat16 the RoI would move by up to 2 pixels.
    rois = torch.tensor([[0, 401.5, 301.5, 430.5, 330.5]])
    extractor = build(dict(type="mmdcn.DeformRoIPool", output_size=3, sampling_ratio=2))
    feats = [feat.detach().bfloat16() for feat in pyramid()]
    output = extractor(feats, rois)
    expected = ops.deform_roi_pool(feats[0], rois, None, None, 3, 1 / 4, 2)
    assert output.dtype == torch.bfloat16 and torch.equal(output, expected)
    moved = ops.deform_roi_pool(feats[0], rois.bfloat16(), None, None, 3, 1 / 4, 2)
    assert not torch.equal(output, moved)


def test_autocast():
    rois = example_rois()
    extractor = build(dict(type="mmdcn.DeformRoIPool", output_size=3))
    feats = [feat.detach() for feat in pyramid()]
    with torch.autocast("cpu", torch.bfloat16):
        output = extractor(feats, rois)
    assert torch.equal(output, extractor([feat.bfloat16() for feat in feats], rois))


def test_position_sensitive_layers():
    extractor = SingleRoIExtractor(
        dict(type="DeformPSRoIPool", output_size=3, output_channels=2, group_size=2), 2, [8]
    )
    maps = torch.randn(2, 8, 32, 32)
    rois = example_rois((40, 90))
    expected = ops.deform_ps_roi_pool(maps, rois, output_size=3, group_size=2, spatial_scale=1 / 8)
    assert torch.equal(extractor([maps], rois), expected)


def test_degenerate_rois():
    rois = torch.tensor([[0, 50.0, 50, 40, 60], [0, 50, 50, 50, 50], [0, 0, 0, float("inf"), 9]])
    extractor = build(dict(type="mmdcn.DeformRoIPool", output_size=3))
    output = extractor(pyramid(), rois)
    assert output.isfinite().all() and not output[2].any()
