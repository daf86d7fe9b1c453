"""Every operator: derivatives beyond the first in reverse mode, torch.func, vmap."""

import itertools

import pytest
import torch
from suites.compare import ERRORS, NATIVE_ONLY, assert_close, cast
from suites.deform_conv2d import DeformConv2d
from suites.rois import RoiSuite
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = NATIVE_ONLY
SLICES = 3


def of_tensors(function, suite, args):
    """The function of its differentiable arguments, and their values."""
    names = suite.given(args)
    values = tuple(args[name] for name in names)
    return lambda *t: function(**{**args, **dict(zip(names, t, strict=True))}), values


def tangents_of(values):
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values)


def scalar(function):
    return lambda *values: function(*values).sin().sum()


def compare(actual, expected, suite):
    names = [str(i) for i in range(len(expected))]
    pairs = (dict(zip(names, values, strict=True)) for values in (actual, expected))
    assert_close(*pairs, suite.tolerance[torch.float64])


def test_numerical_derivatives_in_forward_mode(suite, tiny):
    function, values = of_tensors(suite.function, suite, suite.make(**tiny))
    leaves = tuple(v.clone().requires_grad_() for v in values)
    assert torch.autograd.gradcheck(
        function, leaves, check_forward_ad=True, check_backward_ad=False, fast_mode=True
    )


def test_numerical_second_derivatives(suite, tiny):
    function, values = of_tensors(suite.function, suite, suite.make(**tiny))
    leaves = tuple(v.clone().requires_grad_() for v in values)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True, atol=1e-4)


def test_dual_numbers(suite):
    function, values = of_tensors(suite.function, suite, suite.smallest())
    directions = tangents_of(values)
    expected = torch.func.jvp(function, values, directions)[1]
    assert expected.any()
    operator, args = getattr(torch.ops.mmdcn, suite.operator), suite.smallest()
    for moving in range(len(values)):
        with forward_ad.dual_level():
            name = suite.given(args)[moving]
            dual = {**args, name: forward_ad.make_dual(values[moving], directions[moving])}
            tangent = forward_ad.unpack_dual(operator(*suite.operator_arguments(dual))).tangent
        expected = expected - tangent
    assert expected.abs().max() < 1e-10  # the sum of the parts


def test_transforms_equal_those_of_the_reference(suite):
    args = suite.smallest()
    (native, values), (plain, _) = (
        of_tensors(f, suite, args) for f in (suite.function, suite.reference)
    )
    directions, every = tangents_of(values), tuple(range(len(values)))

    def products(function):
        """Products with the Jacobian, its transpose and the Hessian, which is symmetric."""
        output, tangent = torch.func.jvp(function, values, directions)
        cotangents = torch.func.vjp(function, *values)[1](output.cos())
        gradient = torch.func.grad(scalar(function), every)
        return [output, tangent, *cotangents, *torch.func.jvp(gradient, values, directions)[1]]

    compare(products(native), products(plain), suite)


def test_hessian():
    suite = DeformConv2d()
    args = suite.make(channels=1, out_channels=1, size=(3, 3), kernel=(2, 2))
    hessians = []
    for implementation in (suite.function, suite.reference):
        function, values = of_tensors(implementation, suite, args)
        every = tuple(range(len(values)))
        for transform in (
            torch.func.hessian,
            lambda f, n: torch.func.jacrev(torch.func.jacfwd(f, n), n),
        ):
            blocks = transform(scalar(function), every)(*values)
            hessians.append([block for row in blocks for block in row])
    for other in hessians[:-1]:
        compare(other, hessians[-1], suite)


def slices(values, mapped):
    """Every mapped tensor SLICES times, a little different each time."""
    return tuple(
        torch.stack([v + 0.01 * i for i in range(SLICES)]) if dim == 0 else v
        for v, dim in zip(values, mapped, strict=True)
    )


def choices(count):
    """Which of some arguments are mapped: each alone, and all."""
    return [*([0 if i == j else None for i in range(count)] for j in range(count)), [0] * count]


def test_vmap(suite):
    function, values = of_tensors(suite.function, suite, suite.smallest())
    gradient = torch.func.grad(scalar(function), tuple(range(len(values))))
    for mapped in choices(len(values)):
        stacked = slices(values, mapped)
        for transformed in (lambda *v: (function(*v),), gradient):
            actual = torch.func.vmap(transformed, tuple(mapped))(*stacked)
            single = [
                transformed(
                    *(v[i] if dim == 0 else v for v, dim in zip(stacked, mapped, strict=True))
                )
                for i in range(SLICES)
            ]
            compare(actual, [torch.stack(s) for s in zip(*single, strict=True)], suite)


class Calls(TorchDispatchMode):
    """Counts calls of mmdcn's operators."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.namespace == "mmdcn"
        return func(*args, **(kwargs or {}))


def test_vmap_folds_the_mapped_axis(suite):
    args = suite.smallest()
    function, values = of_tensors(suite.function, suite, args)
    mapped = [None if n in ("weight", "bias") else 0 for n in suite.given(args)]
    with Calls() as calls:
        torch.func.vmap(function, tuple(mapped))(*slices(values, mapped))
    assert calls.count == 1


def test_gradients_of_each_sample(suite):
    """As differential privacy needs them: one gradient of the weights for each image."""
    args = suite.smallest()
    function, values = of_tensors(suite.function, suite, args)
    mapped = [None if n in ("weight", "bias") else 0 for n in suite.given(args)]
    stacked = slices(values, mapped)
    gradient = torch.func.grad(scalar(function), tuple(range(len(values))))
    actual = torch.func.vmap(gradient, tuple(mapped))(*stacked)
    assert all(g.shape[0] == SLICES for g in actual)
    for i, j in itertools.combinations(range(SLICES), 2):
        assert all(not torch.equal(g[i], g[j]) for g in actual if g.any())


@pytest.mark.suites.with_args(RoiSuite)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_vmap_over_rois(suite, dtype):
    args = cast(suite.make(batch=2, rois=4), dtype)
    images = torch.stack([args["input"] * (i + 1) for i in range(200)])  # 400 images in all
    rois = torch.stack([args["rois"].roll(i, 0) for i in range(200)])
    parts = torch.func.vmap(lambda x, r: suite.function(**{**args, "input": x, "rois": r}))
    actual = parts(images, rois)
    for i in (0, 1, 199):
        expected = suite.function(**{**args, "input": images[i], "rois": rois[i]})
        assert torch.equal(actual[i], expected)
    for bad in (-1.0, 2.0, float("nan")):  # 2 would be an image of the next slice
        rois[1, 2, 0] = bad
        with pytest.raises(ERRORS, match="rois: expected batch indices"):
            parts(images, rois)


def test_autocast_inside_torch_func(suite):
    args = cast(suite.smallest(), torch.float32)
    function, values = of_tensors(suite.function, suite, args)
    with torch.autocast("cpu", torch.bfloat16):
        output, pull_back = torch.func.vjp(function, *values)
        actual = pull_back(torch.ones_like(output))
    leaves = [v.clone().requires_grad_() for v in values]
    with torch.autocast("cpu", torch.bfloat16):
        expected = function(*leaves)
    assert output.dtype == torch.bfloat16 and torch.equal(output, expected)
    compare(actual, torch.autograd.grad(expected.sum(), leaves), suite)
