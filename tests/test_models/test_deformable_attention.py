"""Multi-scale deformable attention without a softmax, against nested loops and MMCV's module."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("mmcv.ops")

from mmcv.ops import MultiScaleDeformableAttention  # noqa: E402

from mmdcn.models.layers.deformable_attention import (  # noqa: E402
    UnnormalizedDeformableAttention,
)

SHAPES = ((5, 4), (3, 2))
HEADS, POINTS, WIDTH = 2, 3, 8


def make(kind, **options):
    torch.manual_seed(0)
    module = kind(WIDTH, HEADS, len(SHAPES), POINTS, dropout=0.0, **options).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def inputs(queries=4):
    generator = torch.Generator().manual_seed(1)
    random = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    pixels = sum(h * w for h, w in SHAPES)
    return dict(
        query=random(2, queries, WIDTH),
        value=random(2, pixels, WIDTH),
        query_pos=random(2, queries, WIDTH),
        reference_points=torch.rand(2, queries, 2, 2, generator=generator, dtype=torch.float64),
        spatial_shapes=torch.tensor(SHAPES),
        level_start_index=torch.tensor([0, math.prod(SHAPES[0])]),
        key_padding_mask=torch.arange(pixels)[None] % 7 == torch.arange(2)[:, None],
    )


def bilinear(image, y, x):
    """Value ``(C,)`` of ``(H, W, C)``, zero outside."""
    result = np.zeros(image.shape[2])
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= j < image.shape[0] and 0 <= i < image.shape[1]:
                result += (1 - abs(y - j)) * (1 - abs(x - i)) * image[j, i]
    return result


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def loops(module, given):
    array = {key: value.numpy() for key, value in given.items()}
    query = array["query"] + array["query_pos"]
    value = linear(module.value_proj, array["value"])
    value[array["key_padding_mask"]] = 0
    offsets = linear(module.sampling_offsets, query)
    weights = linear(module.attention_weights, query)
    n, q = query.shape[:2]
    offsets = offsets.reshape(n, q, HEADS, len(SHAPES), POINTS, 2)
    weights = weights.reshape(n, q, HEADS, len(SHAPES), POINTS)
    out = np.zeros((n, q, HEADS, WIDTH // HEADS))
    for b, k, head, level, point in np.ndindex(*weights.shape):
        (height, width), start = SHAPES[level], array["level_start_index"][level]
        rows = value[b, start : start + height * width].reshape(height, width, HEADS, -1)
        x, y = array["reference_points"][b, k, level] * (width, height)
        dx, dy = offsets[b, k, head, level, point]
        sample = bilinear(rows[:, :, head], y + dy - 0.5, x + dx - 0.5)
        out[b, k, head] += weights[b, k, head, level, point] * sample
    return linear(module.output_proj, out.reshape(n, q, WIDTH)) + array["query"]


def test_against_loops():
    module, given = make(UnnormalizedDeformableAttention, batch_first=True), inputs()
    np.testing.assert_allclose(module(**given).detach(), loops(module, given), rtol=1e-10)


def test_queries_come_first_without_batch_first():
    given = inputs()
    expected = make(UnnormalizedDeformableAttention, batch_first=True)(**given)
    for name in ("query", "value", "query_pos"):
        given[name] = given[name].transpose(0, 1)
    module = make(UnnormalizedDeformableAttention, batch_first=False)
    assert torch.equal(module(**given).transpose(0, 1), expected)


def test_equals_mmcv_where_the_weights_are_a_softmax():
    """One point per query and level, with weights that are the softmax of MMCV's."""
    ours = make(UnnormalizedDeformableAttention, batch_first=True)
    theirs = make(MultiScaleDeformableAttention, batch_first=True)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    given = inputs()
    for module in (ours, theirs):
        module.attention_weights.weight.data.zero_()
    bias = theirs.attention_weights.bias.data.view(HEADS, -1)
    ours.attention_weights.bias.data = bias.softmax(-1).flatten()
    torch.testing.assert_close(ours(**given), theirs(**given))


def test_the_head_puts_it_into_the_pixel_decoder():
    pytest.importorskip("mmseg")
    pytest.importorskip("mmdet")
    from mmengine.registry import MODELS, DefaultScope

    from mmdcn.new.recipes import find

    with DefaultScope.overwrite_default_scope("mmseg"), torch.device("meta"):
        for name, kind in (
            ("mask2former_flash-internimage-s_nsmx", UnnormalizedDeformableAttention),
            ("mask2former_flash-internimage-s_160k", MultiScaleDeformableAttention),
        ):
            head = MODELS.build(find(name).cfg.model.decode_head)
            found = [type(layer.self_attn) for layer in head.pixel_decoder.encoder.layers]
            assert found == [kind] * 6
