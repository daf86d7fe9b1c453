"""The operators on the emulated device; test_emulation.py runs this in a process of its own."""

import contextlib
import math

import pytest
import torch
from emulator import ORDERS, Device
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from suites import SUITES, Suite, checks
from suites.compare import assert_close, assert_equal, cast, error, upstream

from benchmarks.traffic import measure_dcn, measure_scalar
from mmdcn import _extension, ops

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CASES = 100  # random ones, for each operator and dtype


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(_extension._FOLDER)


@pytest.fixture(params=SUITES)
def suite(request) -> Suite:
    return SUITES[request.param]().for_emulation()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def products_in(dtype: torch.dtype):
    """Make the reference of deformable convolution multiply as tensor cores do.

    Columns and their gradient are stored in ``dtype``, and so is the gradient of the weight that
    comes from one image. Only that product of the reference is an einsum.
    """
    einsum = torch.einsum

    def product(equation, columns, weight):
        assert equation == "ngckp,gock->ngop"
        weight = weight.expand(columns.shape[0], *weight.shape)
        rounded = (t.to(dtype).to(columns.dtype) for t in (columns, weight))
        return einsum("ngckp,ngock->ngop", *rounded)

    torch.einsum = product
    try:
        yield
    finally:
        torch.einsum = einsum


def check(suite: Suite, args: dict) -> None:
    """Output and all gradients against the reference.

    In 16-bit types, errors must be within the reference's own one and that of float32.
    """
    dtype = args["input"].dtype
    actual = suite.run(suite.function, args)
    with products_in(dtype) if dtype not in suite.tolerance else contextlib.nullcontext():
        expected = suite.run(suite.reference, args)
    if dtype in suite.tolerance:
        return assert_close(actual, expected, suite.tolerance[dtype])
    # For the upstream gradient that is rounded already.
    grad = upstream(actual["output"])
    truth = suite.run(suite.reference, cast(args, torch.float64), grad)
    for name, value in actual.items():
        assert value.dtype == dtype
        largest = truth[name].abs().max().item() if value.numel() else 0.0
        limit = error(expected[name], truth[name]) + suite.tolerance[torch.float32] * largest
        assert error(value, truth[name]) <= limit, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_cases(device, suite, dtype):
    @settings(
        max_examples=CASES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def compare(data):
        config = suite.random_config(data.draw)
        if config["channels"] < (40 if "rois" in config else 12) and data.draw(st.booleans()):
            config["channels"] *= 8  # vectors of any dtype fit
        device.configure(
            data.draw(st.sampled_from(ORDERS)),
            config["seed"],
            data.draw(st.sampled_from([1, 3, 1 << 20])),  # one block goes round all of the work
            data.draw(st.booleans()),
        )
        check(suite, cast(suite.make(**config), dtype))

    compare()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cases(device, suite, dtype):
    device.configure("random", 1, 7)
    for config in suite.cases.values():
        check(suite, cast(suite.make(**config), dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_repeatable_gradients(device, suite, dtype):
    args = cast(suite.make(**suite.large), dtype)
    runs = []
    with deterministic():
        for order in ORDERS:
            device.configure(order, 3)
            runs.append(suite.run(suite.function, args))
        check(suite, args)
    for other in runs[1:]:
        assert_equal(other, runs[0])


def test_gradients_that_are_not_finite_stay_so_when_repeatable(device, suite):
    args = suite.make(**suite.large)
    output = suite.function(**args)
    grad = torch.ones_like(output)
    grad.view(-1)[5] = math.inf
    with deterministic():
        gradient = suite.run(suite.function, args, grad)["input"]
    assert not gradient.isfinite().all()


@deterministic()  # for the tests that compare bits
def test_unusual_values_and_layouts(device, suite):
    device.configure("reverse")
    if suite.has_offsets:
        checks.offsets_that_are_not_finite(suite, suite.function)
    checks.untouched_pixels(suite, suite.function)
    checks.inputs_of_any_strides(suite, "strided")
    checks.inputs_of_any_strides(suite, "permuted")
    checks.gradients_of_some_arguments(suite)


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_addresses_that_forbid_vectors(device, suite, shift):
    """Contiguous views that start in the middle of a vector."""
    device.configure()
    args = cast(suite.make(**{**suite.large, "channels": 48}), torch.float16)
    for name, value in args.items():
        if isinstance(value, torch.Tensor):
            longer = torch.cat([value.new_zeros(shift), value.flatten()])
            args[name] = longer[shift:].view(value.shape)
            assert args[name].data_ptr() % 16
    check(suite, args)


def test_more_elements_than_32_bits_can_count(device):
    """Of an input of 4 GiB only the touched pages exist; the last pixel holds numbers."""
    device.configure()
    size, channels = 16385, 8
    image = torch.empty(1, size, size, channels, dtype=torch.float16)
    assert image.numel() > 1 << 31
    for y in (0, -1):
        for x in (0, -1):
            image[0, y, x] = 0
    image[0, -1, -1] = torch.arange(channels)
    offset = torch.zeros(1, 2, 2, 2, dtype=torch.float16)
    mask = torch.full((1, 2, 2, 1), 0.5, dtype=torch.float16, requires_grad=True)
    output = ops.dcnv3(image, offset, mask, 1, size - 1, 0, 1, 1)
    expected = torch.zeros_like(output)
    expected[0, 1, 1] = torch.arange(channels) / 2
    assert torch.equal(output, expected)
    output.sum().backward()
    assert mask.grad.flatten().tolist() == [0, 0, 0, sum(range(channels))]

    image = image.permute(0, 3, 1, 2)
    weight = torch.eye(channels, dtype=torch.float16)[:, :, None, None]
    output = ops.deform_conv2d(image, offset, weight, None, size - 1)
    assert torch.equal(output, 2 * expected.permute(0, 3, 1, 2))
    rois = torch.tensor([[0.0, size - 1, size - 1, size - 1, size - 1]])
    output = ops.roi_avg_pool(image, rois, 1)
    assert output.flatten().tolist() == list(range(channels))


@pytest.mark.parametrize("operator", ["dcnv3", "dcnv4"])
@pytest.mark.parametrize("groups", [1, 4, 12])
def test_memory_traffic_of_16_channels_in_half_precision(device, operator, groups):
    device.configure()
    forward, _ = measure_dcn(device, operator, groups, 16, torch.float16)
    scalar = measure_scalar(device, groups, 16)
    assert forward.value_width == 16
    assert forward.value_sectors <= 1.1 * forward.ideal_value_sectors
    assert forward.loads <= scalar.loads / 6
    assert scalar.loads == 7 * 9  # four neighbours, an offset pair and a weight for each tap


def test_vector_atomics_are_a_quarter_of_the_instructions(device):
    counts = []
    for vectors in (False, True):
        device.configure(vectors=vectors)
        counts.append(measure_dcn(device, "dcnv3", 4, 16, torch.float32)[1].stores)
    points = 3 * 9 / 16  # stores of the points' gradients per channel
    assert counts[1] - points == pytest.approx((counts[0] - points) / 4)
