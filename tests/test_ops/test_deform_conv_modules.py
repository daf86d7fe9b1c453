"""Modules of deformable convolution, and the same numbers as mmcv's operators."""

import pytest
import torch
from suites.compare import NATIVE_ONLY, assert_close, run
from suites.deform_conv2d import DeformConv2d, ModulatedDeformConv2d
from torch import nn

from mmdcn import ops

PACKS = ["DeformConv2dPack", "ModulatedDeformConv2dPack"]
ARGUMENTS = dict(
    in_channels=12, out_channels=8, kernel_size=(3, 2), stride=(2, 1), padding=(1, 2),
    dilation=(1, 2), groups=2, deform_groups=3,
)  # fmt: skip
# Batches that mmcv cannot cut into equal steps are left out: it refuses them.
MMCV_CASES = {
    "plain": dict(padding=1),
    "asymmetric": dict(batch=2, channels=12, out_channels=8, size=(11, 10), kernel=(3, 2),
                       stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=3),
    "5x5": dict(channels=8, out_channels=8, size=(9, 8), kernel=(5, 5), padding=2, groups=4),
    "1x1": dict(batch=4, channels=8, kernel=(1, 1), deform_groups=2),
    "far_offsets": dict(channels=8, padding=1, size=(9, 8), reach=20),
    "integer_offsets": dict(channels=8, padding=1, size=(9, 8), whole=True),
}  # fmt: skip


@pytest.fixture
def mmcv_ops():
    return pytest.importorskip("mmcv.ops")


def deform(module):
    """Give the offsets of a pack a reason to differ from zero."""
    nn.init.normal_(module.conv_offset.weight, std=0.2)
    nn.init.normal_(module.conv_offset.bias)
    return module.double()


@pytest.mark.parametrize("config", MMCV_CASES.values(), ids=MMCV_CASES.keys())
@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_deform_conv2d_equals_mmcv(mmcv_ops, implementation, config):
    def theirs(input, offset, weight, **options):
        values = [options[k] for k in ("stride", "padding", "dilation", "groups", "deform_groups")]
        return mmcv_ops.deform_conv2d(input, offset, weight, *values)

    suite = DeformConv2d()
    args = suite.make(bias=False, **config)
    ours = suite.function if implementation == "native" else suite.reference
    expected = run(lambda bias, **kw: theirs(**kw), args, suite.differentiable)
    assert_close(run(ours, args, suite.differentiable), expected, 1e-12)


@pytest.mark.parametrize("config", MMCV_CASES.values(), ids=MMCV_CASES.keys())
@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_modulated_deform_conv2d_equals_mmcv(mmcv_ops, implementation, config):
    suite = ModulatedDeformConv2d()
    args = suite.make(**config)
    ours = suite.function if implementation == "native" else suite.reference
    # mmcv's operator takes no keywords.
    expected = run(
        lambda **kw: mmcv_ops.modulated_deform_conv2d(*kw.values()), args, suite.differentiable
    )
    assert_close(run(ours, args, suite.differentiable), expected, 1e-12)


@pytest.mark.parametrize("name", PACKS)
def test_packs_load_the_weights_of_mmcv_and_give_its_numbers(mmcv_ops, name):
    # mmcv's module for DCNv1 has no bias at all.
    theirs = deform(getattr(mmcv_ops, name)(**ARGUMENTS))
    ours = getattr(ops, name)(**ARGUMENTS).double()
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 12, 9, 10, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["DeformConv2d", "ModulatedDeformConv2d", *PACKS])
def test_constructors_take_the_arguments_of_mmcv(mmcv_ops, name):
    arguments = ARGUMENTS if name.startswith("Modulated") else {**ARGUMENTS, "im2col_step": 1}
    ours, theirs = getattr(ops, name)(**arguments), getattr(mmcv_ops, name)(**arguments)
    for attribute in (*ARGUMENTS, "transposed"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute


@pytest.mark.parametrize("name", PACKS)
def test_packs_start_as_a_plain_convolution(name):
    torch.manual_seed(0)
    module = getattr(ops, name)(8, 6, 3, padding=1, deform_groups=2).double()
    x = torch.randn(1, 8, 7, 6, dtype=torch.float64)
    factor = 0.5 if name.startswith("Modulated") else 1.0  # the sigmoid of a zero logit
    bias = None if module.bias is None else module.bias
    expected = nn.functional.conv2d(x, module.weight * factor, bias, padding=1)
    torch.testing.assert_close(module(x), expected)


def test_offsets_and_mask_of_the_pack_are_the_convolutions_thirds():
    module = deform(ops.ModulatedDeformConv2dPack(**ARGUMENTS))
    x = torch.randn(2, 12, 9, 10, dtype=torch.float64)
    first, second, logits = module.conv_offset(x).chunk(3, dim=1)
    expected = ops.reference.modulated_deform_conv2d(
        x, torch.cat([first, second], 1), logits.sigmoid(), module.weight, module.bias,
        module.stride, module.padding, module.dilation, module.groups, module.deform_groups,
    )  # fmt: skip
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("name", ["DeformConv2d", "ModulatedDeformConv2d"])
def test_bias_by_default(name):
    module = getattr(ops, name)(4, 4, 3)
    assert (module.bias is not None) == name.startswith("Modulated")
    assert getattr(ops, name)(4, 4, 3, bias=True).bias is not None
    assert getattr(ops, name)(4, 4, 3, bias=False).bias is None


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(groups=5), "groups: expected a divisor of the 12 input channels, got 5"),
        (dict(out_channels=7), "groups: expected a divisor of the 7 output channels, got 2"),
        (dict(deform_groups=0), "deform_groups: expected a positive number, got 0"),
        (dict(kernel_size=(3, 3, 3)), "kernel_size: expected one or two integers"),
    ],
)
@pytest.mark.parametrize("name", PACKS)
def test_constructor_errors(name, changes, message):
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(**{**ARGUMENTS, **changes})


@NATIVE_ONLY
def test_pack_compiles_and_exports_with_dynamic_sizes():
    torch._dynamo.reset()
    module = deform(ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1, stride=2)).float().eval()
    small, large = torch.randn(2, 4, 8, 11), torch.randn(3, 4, 13, 9)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        module, (small,), dynamic_shapes=[{0: dynamic, 2: dynamic, 3: dynamic}]
    )
    with torch.no_grad():
        for x in (small, large):
            assert torch.equal(compiled(x), module(x))
            assert torch.equal(program.module()(x), module(x))
