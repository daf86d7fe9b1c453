"""What every operator must pass, written once.

A test file describes its operator in a subclass of :class:`OperatorSuite` (the functions, how to
make arguments, a table of cases, an oracle) and inherits all tests below. What only one operator
has stands in its own file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdcn import _extension

Arguments = dict[str, Any]  # by name: tensors, None and plain options

# Largest difference allowed, relative to the largest magnitude of the expected tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
ERRORS = (RuntimeError, ValueError)

native_only = pytest.mark.skipif(
    not _extension.is_available("cpu"), reason="the native library was not built"
)


def fractions(generator: np.random.Generator, shape, low: int, high: int) -> Tensor:
    """Offsets in [low, high) with fractions in [0.2, 0.8].

    The derivative of bilinear sampling jumps at integer positions; with these offsets a
    numerical derivative never crosses one.
    """
    whole = generator.integers(low, high, shape)
    return torch.from_numpy(whole + generator.uniform(0.2, 0.8, shape))


def cast(args: Arguments, dtype: torch.dtype) -> Arguments:
    """All floating-point tensors as ``dtype``."""
    return {
        k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in args.items()
    }


def upstream(output: Tensor) -> Tensor:
    """A fixed gradient of an output."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)


def run(function: Callable, args: Arguments, differentiable, grad: Tensor | None = None):
    """The output and the gradients of the named arguments, for one of the output."""
    leaves = {n: args[n].detach().requires_grad_() for n in differentiable if args[n] is not None}
    output = function(**{**args, **leaves})
    output.backward(upstream(output) if grad is None else grad.to(output.dtype))
    return {"output": output.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; infinite where only one of the two is finite."""
    assert actual.shape == expected.shape
    difference = (actual.double() - expected.double()).abs().nan_to_num(nan=float("inf"))
    return difference.max().item() if difference.numel() else 0.0


def assert_close(actual: dict, expected: dict, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype, name
        scale = expected[name].double().abs().max().item() if value.numel() else 0.0
        assert error(value, expected[name]) <= tolerance * max(scale, 1e-3), name


def assert_equal(actual: dict, expected: dict) -> None:
    """The same bits."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name


@contextlib.contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Module(nn.Module):
    """An operator as a module of its tensors, for export."""

    def __init__(self, function: Callable, args: Arguments) -> None:
        super().__init__()
        self.function = function
        self.names = [name for name, value in args.items() if isinstance(value, Tensor)]
        self.options = {k: v for k, v in args.items() if k not in self.names}

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(**dict(zip(self.names, tensors, strict=True)), **self.options)


class OperatorSuite:
    """Tests of ``mmdcn::<name>``; a subclass fills in the following."""

    name: str
    function: Callable  # of mmdcn.ops, as a staticmethod, like the next two
    reference: Callable  # of mmdcn.ops.reference
    oracle: Callable  # nested loops over NumPy arrays, same arguments
    differentiable: tuple[str, ...]
    tiny: dict[str, dict]  # configurations small enough for the oracle and gradcheck
    cases: dict[str, dict]  # configurations compared with the reference
    large: dict  # several tiles of work, and pixels of the input that no point touches
    threaded: dict[str, dict]  # configurations cut among threads, only ``large`` by default
    errors: dict[str, tuple[dict, str]]  # replaced arguments (or functions of them), message

    def make(self, seed: int = 0, **config) -> Arguments:
        """Arguments of one call, float64, with sampling points away from integer positions."""
        raise NotImplementedError

    def random_config(self, draw: Callable) -> dict:
        """A configuration for :meth:`make` drawn from hypothesis strategies."""
        raise NotImplementedError

    def offsets(self, args: Arguments) -> Tensor | None:
        """View of the offsets with the coordinate pair in the last dimension."""
        raise NotImplementedError

    def flops(self, args: Arguments, output: Tensor) -> tuple[int, int]:
        """FLOPs of the forward, and of the backward with all gradients."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def one_thread(self):
        # The tensors are tiny; waiting for each other would cost the threads more than they do.
        with threads(1):
            yield

    @classmethod
    def pytest_generate_tests(cls, metafunc) -> None:
        threaded = getattr(cls, "threaded", None) or {"large": cls.large}
        tables = dict(tiny=cls.tiny, case=cls.cases, error_case=cls.errors, threaded=threaded)
        for fixture, values in tables.items():
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, values.values(), ids=values.keys())
        if "implementation" in metafunc.fixturenames:
            native = pytest.param(cls.function, id="native", marks=native_only)
            reference = pytest.param(cls.reference, id="reference")
            metafunc.parametrize("implementation", [native, reference])

    def run(self, function: Callable, args: Arguments, grad: Tensor | None = None):
        return run(function, args, self.differentiable, grad)

    def op_arguments(self, args: Arguments) -> tuple:
        """``args`` in the order and the types of the operator's schema."""
        values = []
        for argument in getattr(torch.ops.mmdcn, self.name).default._schema.arguments:
            value = args[argument.name]
            pair = str(argument.type) == "List[int]" and isinstance(value, int)
            values.append([value, value] if pair else value)
        return tuple(values)

    # Numbers

    def test_output_equals_the_oracle(self, implementation, tiny):
        args = self.make(**tiny)
        as_arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in args.items()}
        expected = torch.from_numpy(type(self).oracle(**as_arrays))
        assert expected.abs().max() > 0
        assert_close({"": implementation(**args)}, {"": expected}, TOLERANCE[torch.float64])

    def test_gradients_equal_numerical_ones(self, implementation, tiny):
        args = self.make(**tiny)
        names = [n for n in self.differentiable if args[n] is not None]
        tensors = [args[n].clone().requires_grad_() for n in names]
        torch.autograd.gradcheck(
            lambda *t: implementation(**{**args, **dict(zip(names, t, strict=True))}),
            tensors,
            fast_mode=implementation == self.reference,  # on random projections
        )

    @native_only
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    def test_native_equals_the_reference(self, case, dtype):
        args = cast(self.make(**case), dtype)
        actual, expected = self.run(self.function, args), self.run(self.reference, args)
        assert_close(actual, expected, TOLERANCE[dtype])

    @native_only
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_low_precision_is_as_exact_as_the_reference(self, case, dtype):
        args = cast(self.make(**case), dtype)
        truth = self.run(self.reference, cast(args, torch.float64))
        actual, low = self.run(self.function, args), self.run(self.reference, args)
        for name, value in actual.items():
            assert value.dtype == dtype, name
            limit = 2 * error(low[name], truth[name])
            assert error(value, truth[name]) <= limit, name

    @native_only
    def test_random_configurations(self):
        @settings(
            max_examples=200,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def compare(data):
            args = self.make(**self.random_config(data.draw))
            actual, expected = self.run(self.function, args), self.run(self.reference, args)
            assert_close(actual, expected, TOLERANCE[torch.float64])

        compare()

    # Unusual values

    def test_offsets_that_are_not_finite_count_as_far_outside(self, implementation):
        generator = np.random.default_rng(3)
        for bad in (float("nan"), float("inf"), -float("inf"), 1e30, -1e3):
            args, far = self.make(**self.large), self.make(**self.large)
            offsets, far_offsets = self.offsets(args), self.offsets(far)
            chosen = torch.from_numpy(generator.random(offsets.shape) < 0.1)
            offsets[chosen], far_offsets[chosen] = bad, 1e3
            actual, expected = self.run(implementation, args), self.run(implementation, far)
            assert all(value.isfinite().all() for value in actual.values())
            assert_equal(actual, expected)
            # Neither coordinate of such a point has a gradient.
            gradient = self.offsets({**args, **actual})
            assert not gradient[chosen.any(-1)].any()
            assert gradient[~chosen.any(-1)].any()

    def test_pixels_that_no_point_touches_do_not_matter(self, implementation):
        args = self.make(**self.large)
        expected = self.run(implementation, args)
        untouched = expected["input"] == 0
        assert 0 < untouched.sum() < untouched.numel() / 2
        for bad in (float("nan"), float("inf")):
            args["input"] = args["input"].masked_fill(untouched, bad)
            assert_equal(self.run(implementation, args), expected)

    # Layouts, threads, what is differentiated

    @native_only
    @pytest.mark.parametrize("layout", ["strided", "permuted"])
    def test_inputs_of_any_strides(self, layout):
        def change(t: Tensor) -> Tensor:
            if layout == "strided":
                return torch.stack([t, torch.full_like(t, float("nan"))], -1)[..., 0]
            return t.movedim(-1, 0).contiguous().movedim(0, -1)

        args = self.make(**self.large)
        changed = {k: change(v) if isinstance(v, Tensor) else v for k, v in args.items()}
        expected = self.run(self.function, args)
        assert not changed["input"].is_contiguous()
        grad = change(torch.randn_like(expected["output"]))
        expected = self.run(self.function, args, grad.contiguous())
        assert_equal(self.run(self.function, changed, grad), expected)

    @native_only
    def test_upstream_gradient_of_a_sum(self):
        args = self.make(**self.large)
        ones = torch.ones_like(self.function(**args))
        expanded = torch.ones((), dtype=ones.dtype).expand_as(ones)
        assert_equal(self.run(self.function, args, expanded), self.run(self.function, args, ones))

    @native_only
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_bits_do_not_depend_on_the_number_of_threads(self, threaded, dtype):
        args = cast(self.make(**threaded), dtype)
        with threads(1):
            expected = self.run(self.function, args)
        torch.use_deterministic_algorithms(True)
        try:
            for count in (1, 2, 3):
                with threads(count):
                    assert_equal(self.run(self.function, args), expected)
        finally:
            torch.use_deterministic_algorithms(False)

    @native_only
    def test_gradients_of_some_arguments_only(self):
        args = self.make(**self.large)
        names = [n for n in self.differentiable if args[n] is not None]
        expected = self.run(self.function, args)
        for count in (1, 2):
            for chosen in itertools.combinations(names, count):
                actual = run(self.function, args, chosen)
                assert_equal(actual, {k: expected[k] for k in ("output", *chosen)})

    @native_only
    def test_inference_mode(self):
        args = self.make(**self.large)
        with torch.inference_mode():
            output = self.function(**args)
        assert torch.equal(output, self.function(**args))

    @native_only
    def test_second_derivatives_are_refused(self):
        args = self.make(**self.large)
        args["input"].requires_grad_()
        (gradient,) = torch.autograd.grad(
            self.function(**args).square().sum(), args["input"], create_graph=True
        )
        with pytest.raises(RuntimeError, match=f"{self.name}: second derivatives"):
            gradient.sum().backward()

    @pytest.mark.parametrize("native", [pytest.param(True, marks=native_only), False])
    def test_mixed_dtypes_under_autocast(self, native, monkeypatch):
        monkeypatch.setattr(_extension, "use_native", lambda device_type: native)
        names = [n for n in self.differentiable if isinstance(self.make(**self.large)[n], Tensor)]
        args = cast(self.make(**self.large), torch.float32)
        dtypes = itertools.cycle([torch.float32, torch.bfloat16, torch.float16])
        mixed = {**args, **{n: args[n].to(d) for n, d in zip(names, dtypes, strict=False)}}
        actual = self.run(torch.autocast("cpu", torch.bfloat16)(self.function), mixed)
        expected = self.run(self.function, cast(mixed, torch.bfloat16))
        assert actual["output"].dtype == torch.bfloat16
        assert_equal(actual, {k: v.to(actual[k].dtype) for k, v in expected.items()})
        for name in names:
            assert actual[name].dtype == mixed[name].dtype

    def test_autocast_leaves_float64_alone(self, implementation):
        args = self.make(**self.large)
        expected = self.run(implementation, args)
        actual = self.run(torch.autocast("cpu", torch.bfloat16)(implementation), args)
        assert_equal(actual, expected)

    # Errors

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_errors_name_the_argument(self, implementation, error_case, device):
        changes, message = error_case
        args = self.make(**next(iter(self.tiny.values())))
        implementation(**args)  # fits before the change
        args.update({k: v(args) if callable(v) else v for k, v in changes.items()})
        args = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}
        with pytest.raises(ERRORS, match=message):
            implementation(**args)

    def test_errors_name_a_tensor_on_another_device(self, implementation):
        args = self.make(**next(iter(self.tiny.values())))
        for name in [k for k, v in args.items() if isinstance(v, Tensor)][1:]:
            with pytest.raises(ERRORS, match=f"{name}: expected the device of input"):
                implementation(**{**args, name: args[name].to("meta")})

    # The rest of PyTorch

    @native_only
    def test_opcheck(self, tiny):
        args = cast(self.make(**tiny), torch.float32)
        for name in self.differentiable:
            if args[name] is not None:
                args[name].requires_grad_()
        op = getattr(torch.ops.mmdcn, self.name).default
        torch.library.opcheck(op, self.op_arguments(args))

    @native_only
    def test_meta_tensors(self, case):
        args = cast(self.make(**case), torch.float32)
        meta = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in args.items()}
        actual, expected = self.function(**meta), self.function(**args)
        assert actual.device.type == "meta"
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        assert actual.stride() == expected.stride()

    @native_only
    @pytest.mark.parametrize(
        "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
    )
    def test_compile(self, backend):
        args = cast(self.make(**self.large), torch.float32)
        torch._dynamo.reset()
        compiled = torch.compile(self.function, fullgraph=True, backend=backend)
        assert_equal(self.run(compiled, args), self.run(self.function, args))

    @native_only
    def test_export(self):
        args = cast(self.make(**self.large), torch.float32)
        tensors = tuple(v for v in args.values() if isinstance(v, Tensor))
        program = torch.export.export(_Module(self.function, args), tensors)
        assert any(self.name in str(node.target) for node in program.graph.nodes)
        assert torch.equal(program.module()(*tensors), self.function(**args))

    @native_only
    def test_flop_counter(self):
        args = self.make(**self.large)
        leaves = {n: args[n].requires_grad_() for n in self.differentiable if args[n] is not None}
        with FlopCounterMode(display=False) as counter:
            output = self.function(**{**args, **leaves})
            forward = counter.get_total_flops()
            output.sum().backward()
        expected = self.flops(args, output)
        assert (forward, counter.get_total_flops() - forward) == expected
