"""Every operator in ONNX Runtime and in ONNX's own evaluator, against the native one.

Each row is exported once, with dynamic sizes, and run on random inputs of several sizes.
"""

import numpy as np
import pytest
import torch
from suites import SUITES

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
from exporting import Exported, Windowed, close  # noqa: E402

from mmdcn import ops  # noqa: E402
from mmdcn.onnx import translation_table  # noqa: E402

RUNS = 9
# kernel, stride, padding, dilation
WINDOWS = {
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1": ((1, 1), (1, 1), (0, 0), (1, 1)),
    "5x1": ((5, 1), (1, 2), (2, 0), (1, 1)),
    "2x3": ((2, 3), (2, 1), (1, 0), (1, 2)),
    "dilated": ((3, 3), (1, 1), (2, 3), (2, 3)),
    "strided": ((3, 3), (2, 3), (1, 1), (1, 1)),
}
# Each of the following goes with two of these windows.
# input channels, output channels, groups, deform_groups, modulated, bias
CONVOLUTIONS = [(4, 6, 1, 1, True, True), (6, 4, 2, 3, True, False), (6, 6, 6, 2, False, True)]
# channels, groups, offset_scale, remove_center
AGGREGATIONS = [(6, 2, 1.0, False), (16, 4, 2.0, True), (5, 5, 0.5, False)]


def positions(generator, *shape):
    """Offsets of a few pixels, some far outside."""
    offsets = torch.randn(shape, generator=generator) * 3
    chance = torch.rand(shape, generator=generator)
    return offsets.where(chance > 0.02, offsets * 1e6)


def sizes(generator):
    """Batch, height and width."""
    return [int(torch.randint(low, high, (), generator=generator)) for low, high in
            ((1, 4), (5, 12), (5, 12))]  # fmt: skip


def convolution(pick, input, weight, offset, *rest, groups, deform_groups, modulated, bias, window):
    rest = list(rest)
    mask = pick(rest.pop(0)).sigmoid() if modulated else None
    options = dict(zip(("stride", "padding", "dilation"), window[1:], strict=True))
    options |= dict(bias=rest.pop(0) if bias else None, groups=groups, deform_groups=deform_groups)
    if modulated:
        return ops.modulated_deform_conv2d(input, pick(offset), mask, weight, **options)
    return ops.deform_conv2d(input, pick(offset), weight, **options)


@pytest.mark.parametrize("standard_ops", [False, True], ids=["DeformConv", "standard"])
@pytest.mark.parametrize("window", WINDOWS)
def test_deform_conv2d(window, standard_ops):
    which = list(WINDOWS).index(window) % len(CONVOLUTIONS)
    channels, out_channels, groups, deform_groups, modulated, bias = CONVOLUTIONS[which]
    window = WINDOWS[window]
    points = deform_groups * window[0][0] * window[0][1]

    def inputs(seed, size=None):
        g = torch.Generator().manual_seed(seed)
        n, h, w = size or sizes(g)
        found = [
            torch.randn(n, channels, h, w, generator=g),
            torch.randn(out_channels, channels // groups, *window[0], generator=g),
            positions(g, n, 2 * points, h, w),
        ]
        found += [torch.randn(n, points, h, w, generator=g)] * modulated
        return found + [torch.randn(out_channels, generator=g)] * bias

    options = dict(
        groups=groups, deform_groups=deform_groups, modulated=modulated, bias=bias, window=window
    )
    model = Windowed(convolution, window, options)
    static = [(1,), (0, 1, 2, 3), (1,)] + [(1,)] * modulated + [(0,)] * bias
    exported = Exported(model, inputs(0, (2, 9, 8)), static, standard_ops)
    assert ("DeformConv" in exported.operators) != standard_ops
    for seed in range(RUNS):
        given = inputs(seed)
        close(exported(*given), model(*given))
    small = inputs(RUNS, (1, 6, 5))
    close(exported.evaluated(*small), model(*small))


def aggregation(pick, input, offset, *mask, window, groups, scale, remove_center, softmax):
    options = dict(zip(("kernel_size", "stride", "padding", "dilation"), window, strict=True))
    options |= dict(groups=groups, offset_scale=scale, remove_center=remove_center)
    input, offset, *mask = (m.permute(0, 2, 3, 1) for m in (input, pick(offset), *map(pick, mask)))
    if mask:
        return ops.dcnv3(input, offset, *mask, mask_softmax=softmax, **options)
    return ops.dcnv4(input, offset, **options)


@pytest.mark.parametrize("operator", ["dcnv3", "dcnv3 with softmax", "dcnv4"])
@pytest.mark.parametrize("window", WINDOWS)
def test_aggregation(window, operator):
    which = list(WINDOWS).index(window) % len(AGGREGATIONS)
    channels, groups, scale, remove_center = AGGREGATIONS[which]
    window = WINDOWS[window]
    (kh, kw) = window[0]
    remove_center = remove_center and kh % 2 == kw % 2 == 1 and kh * kw > 1
    points = groups * (kh * kw - remove_center)

    def inputs(seed, size=None):
        g = torch.Generator().manual_seed(seed)
        n, h, w = size or sizes(g)
        input = torch.randn(n, channels, h, w, generator=g)
        offset = positions(g, n, 2 * points, h, w)
        mask = torch.randn(n, points, h, w, generator=g)
        if operator != "dcnv4":
            return [input, offset, mask]
        taps = points // groups  # offsets and masks of a group stand together, then some surplus
        both = torch.cat(
            [offset.unflatten(1, (groups, 2 * taps)), mask.unflatten(1, (groups, taps))], 2
        ).flatten(1, 2)
        return [input, torch.cat([both, mask[:, :3]], 1)]

    options = dict(
        window=window,
        groups=groups,
        scale=scale,
        remove_center=remove_center,
        softmax="softmax" in operator,
    )
    model = Windowed(aggregation, window, options)
    example = inputs(0, (2, 9, 8))
    exported = Exported(model, example, [(1,)] * len(example))
    for seed in range(RUNS):
        given = inputs(seed)
        close(exported(*given), model(*given))
    small = inputs(RUNS, (1, 6, 5))
    close(exported.evaluated(*small), model(*small))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e30])
@pytest.mark.parametrize("operator", ["deform_conv2d", "dcnv3"])
def test_offsets_that_are_not_finite_sample_nothing(operator, value):
    """ONNX does not say so of its own operators; the standard ones are fed what is safe."""
    torch.manual_seed(0)
    input, offset = torch.randn(2, 4, 5, 5), torch.randn(2, 18, 5, 5)
    offset[torch.rand_like(offset) > 0.8] = value
    if operator == "deform_conv2d":
        given = [input, offset, torch.randn(4, 4, 3, 3)]
        model = Plain(lambda x, o, w: ops.deform_conv2d(x, o, w, padding=1))
    else:
        given = [input.movedim(1, -1), offset.movedim(1, -1), torch.randn(2, 5, 5, 9)]
        given = [tensor.contiguous() for tensor in given]
        model = Plain(lambda x, o, m: ops.dcnv3(x, o, m, groups=1))
    fixed = [tuple(range(tensor.dim())) for tensor in given]
    close(Exported(model, given, fixed, standard_ops=True)(*given), model(*given))


class Plain(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


class Regions(torch.nn.Module):
    def __init__(self, name, names, options):
        super().__init__()
        self.name, self.names, self.options = name, names, options

    def forward(self, *tensors):
        return getattr(ops, self.name)(
            **dict(zip(self.names, tensors, strict=True)), **self.options
        )


REGIONS = {
    "deform_roi_pool": [
        dict(output_size=(3, 2), offset=False, mask=False, sampling_ratio=2),
        dict(output_size=7, offset=False, mask=True, sampling_ratio=0),
        dict(output_size=(2, 5), offset=False, mask=False, sampling_ratio=1, spatial_scale=0.25),
        dict(output_size=(3, 2), offset=True, mask=False, sampling_ratio=2),
        dict(output_size=1, offset=True, mask=True, sampling_ratio=1),
        dict(output_size=7, offset=True, mask=True, sampling_ratio=3, gamma=0.5, channels=5),
    ],
    "deform_ps_roi_pool": [
        dict(output_size=(3, 2), offset=False, mask=False),
        dict(output_size=3, group_size=3, offset=True, mask=False, channels=5),
        dict(output_size=(4, 2), group_size=2, part_size=(2, 3), offset=True, mask=True, samples=3),
        dict(output_size=3, group_size=1, classes=3, channels=6, offset=True, mask=True, samples=1),
        dict(output_size=2, group_size=4, offset=False, mask=True, spatial_scale=0.25),
        dict(output_size=7, group_size=7, offset=True, mask=True, trans_std=0.5),
    ],
    "ps_roi_pool": [
        dict(output_size=(3, 2)), dict(output_size=1), dict(output_size=4, channels=5),
        dict(output_size=7, spatial_scale=0.25), dict(output_size=(2, 5), spatial_scale=1.0),
    ],
    "roi_avg_pool": [
        dict(output_size=(3, 2)), dict(output_size=1), dict(output_size=4, channels=5),
        dict(output_size=7, spatial_scale=0.25), dict(output_size=(2, 5), spatial_scale=1.0),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config"),
    [(name, config) for name, configs in REGIONS.items() for config in configs],
    ids=str,
)
def test_regions(name, config):
    suite = SUITES[name]()

    def arguments(seed, batch=None, rois=None, size=None):
        rng = np.random.default_rng(seed)
        # Of none reversed or of no extent: what RoIAlign does then is not defined.
        args = suite.make(
            seed,
            batch=batch or int(rng.integers(1, 4)),
            rois=rois or int(rng.integers(1, 7)),
            size=size or tuple(rng.integers(5, 14, 2).tolist()),
            **config,
        )
        tensors = {k: v.float() for k, v in args.items() if isinstance(v, torch.Tensor)}
        return tensors, {k: v for k, v in args.items() if not isinstance(v, torch.Tensor)}

    tensors, options = arguments(0, 2, 4, (9, 8))
    model = Regions(name, list(tensors), options)
    static = {"input": (1,), "rois": (1,)}
    fixed = [static.get(key, (1, 2, 3)) for key in tensors]
    exported = Exported(model, tensors.values(), fixed)
    aligned = name == "deform_roi_pool" and not config["offset"]
    assert ("RoiAlign" in exported.operators) == aligned
    for seed in range(RUNS + 3):
        given = arguments(seed)[0].values()
        close(exported(*given), model(*given))
    given = arguments(3, 1, 3, (6, 7))[0].values()
    if not aligned:  # ONNX's evaluator samples RoIAlign in another way
        close(exported.evaluated(*given), model(*given))


def test_samples_that_depend_on_the_region_are_refused_with_offsets():
    tensors = [torch.randn(1, 2, 8, 8), torch.tensor([[0.0, 1, 1, 6, 6]]), torch.zeros(1, 2, 2, 2)]
    options = dict(output_size=2, sampling_ratio=0)
    model = Regions("deform_roi_pool", ["input", "rois", "offset"], options)
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        Exported(model, tensors, [(0, 1, 2, 3), (0, 1), (0, 1, 2, 3)])
    reasons, error = [], caught.value
    while error is not None:
        reasons.append(str(error))
        error = error.__cause__
    assert any(
        "sampling_ratio: with offsets, ONNX models need a fixed number" in r for r in reasons
    )


def test_every_operator_has_a_translation():
    known = {str(op) for op in translation_table()}
    operators = {f"mmdcn.{SUITES[name]().operator}.default" for name in SUITES}
    assert known == operators | {"mmdcn_onnx.suppress.default"}
