"""The operators on a GPU: ``pytest -m cuda``. Not one of these tests has run so far."""

import os
import shutil
import subprocess
import sys

# Read when cuBLAS starts; without it PyTorch refuses repeatable matrix products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from operators import DTYPES, check, deterministic
from suites import SUITES, Suite, checks
from suites.compare import assert_close, assert_equal, cast
from torch import Tensor

from mmdcn import _extension, ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.skipif(
        not _extension.is_available("cuda"), reason=f"{_extension.why_missing('cuda')}"
    ),
]
LONG = 200_000_000  # cycles of a GPU, about a tenth of a second


def move(args: dict, device: str) -> dict:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}


def on(device: str, function):
    """The function there, of tensors and with a result on the CPU."""
    return lambda **args: function(**move(args, device)).cpu()


@pytest.fixture(params=SUITES)
def plain(request) -> Suite:
    return SUITES[request.param]().for_emulation()


@pytest.fixture
def suite(plain) -> Suite:
    """Its function computes on the GPU."""
    plain.function = on("cuda", plain.function)
    return plain


@pytest.fixture(autouse=True)
def exact_products():
    matmul = torch.backends.cuda.matmul
    before = (
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
    )
    matmul.allow_tf32 = False  # the default
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    yield
    matmul.allow_fp16_reduced_precision_reduction = before[0]
    matmul.allow_bf16_reduced_precision_reduction = before[1]


# Numbers


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cases(suite, dtype, repeatable):
    for config in [*suite.cases.values(), suite.large]:
        args = cast(suite.make(**config), dtype)
        if repeatable:
            with deterministic():
                check(suite, args)
        else:
            check(suite, args)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_cases(suite, dtype):
    @settings(
        max_examples=100,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def compare(data):
        check(suite, cast(suite.make(**suite.random_config(data.draw)), dtype))

    compare()


def test_gradients_equal_numerical_ones(suite):
    for config in suite.tiny.values():
        args = suite.make(**config)
        names = suite.given(args)
        leaves = [args[n].clone().requires_grad_() for n in names]
        torch.autograd.gradcheck(
            lambda *tensors, args=args, names=names: suite.function(
                **{**args, **dict(zip(names, tensors, strict=True))}
            ),
            leaves,
            nondet_tol=1e-12,  # atomics
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeatable_gradients(suite, dtype):
    args = cast(suite.make(**suite.large), dtype)
    with deterministic():
        first = suite.run(suite.function, args)
        for _ in range(3):
            assert_equal(suite.run(suite.function, args), first)


def test_unusual_values_and_layouts(suite):
    with deterministic():
        if suite.has_offsets:
            checks.offsets_that_are_not_finite(suite, suite.function)
        checks.untouched_pixels(suite, suite.function)
        checks.gradients_of_some_arguments(suite)


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_addresses_that_forbid_vectors(plain, shift):
    args = cast(plain.make(**{**plain.large, "channels": 48}), torch.float16)
    function = plain.function

    def shifted(**args):
        for name, value in args.items():
            if isinstance(value, Tensor):
                longer = torch.cat([value.new_zeros(shift), value.flatten()]).cuda()
                args[name] = longer[shift:].view(value.shape)
        return function(**args).cpu()

    plain.function = shifted
    check(plain, args)


def test_more_elements_than_32_bits_can_count():
    """The last pixel of an input of 4 GiB."""
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GiB of free memory on the GPU")
    size, channels = 16385, 8
    input = torch.zeros(1, size, size, channels, dtype=torch.float16, device="cuda")
    assert input.numel() > 1 << 31
    input[0, -1, -1] = torch.arange(channels)
    offset, mask = input.new_zeros(1, 2, 2, 2), input.new_full((1, 2, 2, 1), 0.5)
    output = ops.dcnv3(input, offset, mask, 1, size - 1, 0, 1, 1)
    expected = torch.zeros_like(output)
    expected[0, 1, 1] = torch.arange(channels) / 2
    assert torch.equal(output, expected)


# The rest of PyTorch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(suite, dtype):
    args = cast(suite.make(**suite.large), torch.float32)
    with deterministic():
        with torch.autocast("cuda", dtype):
            actual = suite.function(**args)
        names = suite.given(args)
        low = {**args, **{n: args[n].to(dtype) for n in names}}
        assert actual.dtype == dtype
        assert torch.equal(actual, suite.function(**low))


def test_opcheck(plain):
    args = move(cast(plain.make(**plain.large), torch.float32), "cuda")
    for name in plain.differentiable:
        if args[name] is not None:
            args[name].requires_grad_()
    op = getattr(torch.ops.mmdcn, plain.operator).default
    with deterministic():
        torch.library.opcheck(op, plain.operator_arguments(args))


def training_step(plain, args: dict, device: str = "cuda"):
    """Starts forward and backward on copies that wait on the GPU; returns output and gradients."""
    leaves = plain.given(args)
    moved = {k: v.detach() for k, v in move(args, device).items() if isinstance(v, Tensor)}
    for name in leaves:
        moved[name].requires_grad_()

    def run():
        output = plain.function(**{**args, **moved})
        gradients = torch.autograd.grad(output.sum(), [moved[n] for n in leaves])
        return dict(zip(["output", *leaves], [output.detach(), *gradients], strict=True))

    return moved, run


@pytest.mark.parametrize("repeatable", [False, True])
def test_current_stream_without_synchronisation(plain, repeatable):
    args = cast(plain.make(**plain.large), torch.float32)
    moved, run = training_step(plain, args)
    torch.use_deterministic_algorithms(repeatable)
    try:
        expected = run()  # loads kernels and cuBLAS
        right = moved["input"].detach().clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()  # lets the allocator of this stream have its memory
            stream.synchronize()
            with torch.no_grad():
                moved["input"].zero_()
                torch.cuda._sleep(LONG)
                moved["input"].copy_(right)  # only now the input is what it should be
            actual = run()
            assert not stream.query(), "a call waited for the GPU"
        stream.synchronize()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(actual, expected, 1e-5)


def test_cuda_graph(plain):
    args = move(cast(plain.make(**plain.large), torch.float32), "cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        plain.function(**args)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = plain.function(**args)
    args["input"].mul_(2)
    expected = plain.function(**args)
    graph.replay()
    torch.cuda.synchronize()
    assert_close({"": output}, {"": expected}, 1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_second_device(plain):
    args = cast(plain.make(**plain.large), torch.float32)
    results = []
    for device in ("cuda:0", "cuda:1"):
        _, run = training_step(plain, args, device)
        with torch.cuda.device(0):
            found = run()
            assert torch.cuda.current_device() == 0
        assert {t.device for t in found.values()} == {torch.device(device)}
        results.append({k: v.cpu() for k, v in found.items()})
    assert_close(*results, 1e-5)


def test_columns_do_not_grow_with_the_batch():
    def peak(batch: int) -> int:
        input = torch.zeros(batch, 64, 256, 256, device="cuda")
        offset = torch.zeros(batch, 18, 256, 256, device="cuda")
        weight = torch.zeros(8, 64, 3, 3, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = ops.deform_conv2d(input, offset, weight, padding=1)
        copies = input.nbytes + weight.nbytes  # channels last
        return torch.cuda.max_memory_allocated() - before - output.nbytes - copies

    ops.deform_conv2d(*(torch.zeros(s, device="cuda") for s in
                        [(1, 8, 3, 3), (1, 18, 1, 1), (8, 8, 3, 3)]))  # fmt: skip
    columns = 64 * 9 * 256 * 256 * 4
    assert columns > 64 << 20
    for batch in (1, 5):
        assert peak(batch) <= 65 << 20


def test_roi_of_a_missing_image_stops_the_program():
    program = """
import torch
from mmdcn import ops
rois = torch.tensor([[2.0, 0, 0, 4, 4]], device="cuda")
ops.roi_avg_pool(torch.zeros(2, 3, 8, 8, device="cuda"), rois, 2)
torch.cuda.synchronize()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "batch_index_is_in_range" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="there is no compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "initcheck", "racecheck"])
def test_compute_sanitizer(root, tool):
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += ["-k", "test_cases and (float32 or float16)"]
    # Its own allocator would hide accesses between blocks of memory.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
