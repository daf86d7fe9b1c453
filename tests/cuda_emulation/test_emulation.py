"""The CUDA kernels on the emulated device, under AddressSanitizer and UndefinedBehaviorSanitizer.

Python is not instrumented, so the sanitizers' runtimes have to be loaded first: each test is a
process of its own.
"""

import platform
import subprocess
import sys
from pathlib import Path

import emulator_build
import pytest
from suites import SUITES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="fibers are written for x86-64"),
]
HERE = Path(__file__).resolve().parent
ASAN_EXIT = 97  # set in the environment


@pytest.fixture(scope="session")
def emulated() -> dict[str, str]:
    """Environment of a process with the emulated library."""
    emulator_build.build()
    return emulator_build.environment()


def run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a script that finds a device and small arrays of floats."""
    prelude = """
import ctypes
import torch  # whose libraries the emulated one needs
from emulator import Device
from emulator_build import BUILD

device = Device(BUILD)
library = device.library

def array(values):
    return (ctypes.c_float * len(values))(*values)
"""
    command = [sys.executable, "-c", prelude + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def output(code: str, environment: dict[str, str]) -> str:
    result = run(code, environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


REVERSE = """
results = set()
for order in ("forward", "reverse", "random"):
    for seed in range(3):
        device.configure(order, seed)
        source, target = array(range(128)), array([0] * 128)
        assert library.test_reverse(source, target, 2, {barrier}) == 0
        results.add(tuple(target))
expected = tuple([*range(63, -1, -1), *range(127, 63, -1)])
print(len(results), expected in results)
"""


def test_barrier_makes_results_the_same_in_any_order(emulated):
    assert output(REVERSE.format(barrier=1), emulated) == "1 True"


def test_missing_barrier_is_detected(emulated):
    count, _ = output(REVERSE.format(barrier=0), emulated).split()
    assert int(count) > 1


def test_dynamic_shared_memory(emulated):
    code = """
for order in ("forward", "reverse", "random"):
    device.configure(order)
    source, target = array(range(192)), array([0] * 3)
    assert library.test_sum(source, target, 3) == 0
    print(list(target))
"""
    sums = [float(sum(range(first, first + 64))) for first in (0, 64, 128)]
    assert output(code, emulated).splitlines() == [str(sums)] * 3


def test_read_out_of_bounds_is_detected(emulated):
    code = """
source, target = torch.ones(100), torch.zeros(128)
pointers = [ctypes.c_void_p(t.data_ptr()) for t in (source, target)]
library.test_copy(*pointers, 100)
assert target.sum() == 100
print("in bounds", flush=True)
library.test_copy(*pointers, 101)
print("not reached")
"""
    result = run(code, emulated)
    assert result.returncode == ASAN_EXIT
    assert result.stdout.strip() == "in bounds"
    assert "heap-buffer-overflow" in result.stderr and "copy_kernel" in result.stderr


def test_misaligned_vector_is_detected(emulated):
    code = """
source, target = torch.ones(300), torch.zeros(300)
for shift in (0, 1):
    pointers = [ctypes.c_void_p(t.data_ptr() + 4 * shift) for t in (source, target)]
    library.test_vector(*pointers, 1)
    print(shift, flush=True)
"""
    result = run(code, emulated)
    assert result.returncode != 0
    assert result.stdout.strip() == "0"
    assert "misaligned address" in result.stderr


def test_deadlock_is_detected(emulated):
    code = "print(library.test_deadlock(array([0] * 64)), library.test_deadlock(array([0] * 64)))"
    assert output(code, emulated) == "1 1"


def test_warp_operations(emulated):
    code = """
target = array([0, 0])
for order in ("forward", "reverse", "random"):
    device.configure(order)
    assert library.test_warp(array(range(64)), target) == 0
print(list(target))
"""
    totals = [0.0, 0.0]
    for thread in range(64):
        values = [t + (t & ~3) + 1 for t in range(64)]
        totals[thread % 2] += values[thread] + values[thread ^ 16] + 0xAAAA + 1
    assert output(code, emulated) == str([3 * total for total in totals])


def test_statistics(emulated):
    code = """
source = torch.ones(1024)
pointers = [ctypes.c_void_p(t.data_ptr()) for t in (source[:512], source[512:])]
assert source.data_ptr() % 32 == 0
with device.record() as traffic:
    library.test_vector(*pointers, 2)
for t in traffic:
    assert "vector_kernel" in t.kernel
    print(t.kind, t.width, t.requests, t.accesses, t.bytes, t.sectors)
with device.record() as traffic:
    library.test_copy(ctypes.c_void_p(source.data_ptr() + 4), pointers[1], 64)
print([(t.kind, t.sectors) for t in traffic])
"""
    expected = [
        "load 16 4 128 2048 64",
        "store 16 4 128 2048 64",
        "[('load', 10), ('store', 8)]",  # shifted by a float: one sector more for each of 2 warps
    ]
    assert output(code, emulated).splitlines() == expected


@pytest.mark.parametrize("name", [*SUITES, "memory_traffic or atomics or 32_bits"])
def test_operator(emulated, name):
    """See operators.py."""
    selected = f"[{name}-" if name in SUITES else name
    expression = f"{selected} or [{name}]" if name in SUITES else name
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=3"]
    command += [str(HERE / "operators.py"), "-k", expression]
    result = subprocess.run(
        command, env=emulated, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
