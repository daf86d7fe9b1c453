"""Every operator: layouts, threads, what is differentiated, autocast, errors."""

import itertools

import pytest
import torch
from suites import checks
from suites.compare import (
    ERRORS,
    NATIVE_ONLY,
    assert_equal,
    cast,
    threads,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmdcn import _extension


@NATIVE_ONLY
@pytest.mark.parametrize("layout", ["strided", "permuted"])
def test_inputs_of_any_strides(suite, layout):
    checks.inputs_of_any_strides(suite, layout)


@NATIVE_ONLY
def test_gradients_of_some_arguments_only(suite):
    checks.gradients_of_some_arguments(suite)


@NATIVE_ONLY
def test_upstream_gradient_of_a_sum(suite):
    args = suite.make(**suite.large)
    ones = torch.ones_like(suite.function(**args))
    expanded = torch.ones((), dtype=ones.dtype).expand_as(ones)
    assert_equal(suite.run(suite.function, args, expanded), suite.run(suite.function, args, ones))


@NATIVE_ONLY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(suite, threaded, dtype):
    args = cast(suite.make(**threaded), dtype)
    with threads(1):
        expected = suite.run(suite.function, args)
    torch.use_deterministic_algorithms(True)
    try:
        for count in (1, 2, 3):
            with threads(count):
                assert_equal(suite.run(suite.function, args), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@NATIVE_ONLY
@pytest.mark.slow
def test_workers_of_a_data_loader(suite, threaded):
    """They are forks of a process that has used threads, in which a thread team would hang."""
    args = suite.make(**threaded)
    with threads(2):
        expected = suite.function(**args)
    calls = [lambda: suite.function(**args)] * 2
    loader = DataLoader(
        Calls(calls), None, num_workers=1, timeout=60, multiprocessing_context="fork"
    )
    for output in loader:
        assert torch.equal(output, expected)


class Calls(Dataset):
    def __init__(self, calls):
        self.calls = calls

    def __len__(self):
        return len(self.calls)

    def __getitem__(self, index):
        return self.calls[index]()


@NATIVE_ONLY
def test_inference_mode(suite):
    args = suite.make(**suite.large)
    with torch.inference_mode():
        output = suite.function(**args)
    assert torch.equal(output, suite.function(**args))


@pytest.mark.parametrize("native", [pytest.param(True, marks=NATIVE_ONLY), False])
def test_mixed_dtypes_under_autocast(suite, native, monkeypatch):
    monkeypatch.setattr(_extension, "use_native", lambda device_type: native)
    names = [n for n in suite.differentiable if isinstance(suite.make(**suite.large)[n], Tensor)]
    args = cast(suite.make(**suite.large), torch.float32)
    dtypes = itertools.cycle([torch.float32, torch.bfloat16, torch.float16])
    mixed = {**args, **{n: args[n].to(d) for n, d in zip(names, dtypes, strict=False)}}
    actual = suite.run(torch.autocast("cpu", torch.bfloat16)(suite.function), mixed)
    expected = suite.run(suite.function, cast(mixed, torch.bfloat16))
    assert actual["output"].dtype == torch.bfloat16
    assert_equal(actual, {k: v.to(actual[k].dtype) for k, v in expected.items()})
    for name in names:
        assert actual[name].dtype == mixed[name].dtype


def test_autocast_leaves_float64_alone(suite, implementation):
    args = suite.make(**suite.large)
    expected = suite.run(implementation, args)
    actual = suite.run(torch.autocast("cpu", torch.bfloat16)(implementation), args)
    assert_equal(actual, expected)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_errors_name_the_argument(suite, implementation, error_case, device):
    changes, message = error_case
    args = suite.smallest()
    implementation(**args)  # fits before the change
    args.update({k: v(args) if callable(v) else v for k, v in changes.items()})
    args = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}
    with pytest.raises(ERRORS, match=message):
        implementation(**args)


def test_errors_name_a_tensor_on_another_device(suite, implementation):
    args = suite.smallest()
    for name in [k for k, v in args.items() if isinstance(v, Tensor)][1:]:
        with pytest.raises(ERRORS, match=f"{name}: expected the device of input"):
            implementation(**{**args, name: args[name].to("meta")})
