"""The CUDA sources under nvcc, which needs no GPU."""

import subprocess
import sys

import pytest

from benchmarks import registers

needs_nvcc = pytest.mark.skipif(registers.find_nvcc() is None, reason="there is no nvcc")
LOG = """
ptxas info    : Compiling entry function '_ZN5mmdcn3toyIfLi4EEEvi' for 'sm_90'
ptxas info    : Function properties for _ZN5mmdcn3toyIfLi4EEEvi
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 0 barriers
"""


@pytest.mark.slow
@pytest.mark.long
@needs_nvcc
def test_no_warnings_no_spills_few_registers(root):
    """For one architecture; benchmarks.registers compiles for others, too."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.registers", "80"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 complaints" in result.stdout
    assert "| `aggregation` | `forward_kernel` |" in result.stdout


@pytest.mark.parametrize(
    "registers_used, stack, stores, loads, fits",
    [(96, 0, 0, 0, True), (97, 0, 0, 0, False), (8, 8, 0, 0, False), (8, 0, 4, 0, False),
     (8, 0, 0, 4, False)],
)  # fmt: skip
def test_limits(registers_used, stack, stores, loads, fits):
    log = LOG.format(registers=registers_used, stack=stack, stores=stores, loads=loads)
    (kernel,) = registers.parse("toy", log)
    assert (kernel.name, kernel.dtype, kernel.architecture) == ("toy", "float32", "sm_90")
    assert (kernel.registers, kernel.stack, kernel.spills) == (
        registers_used,
        stack,
        stores + loads,
    )
    assert kernel.fits == fits


def test_warnings_of_ours_are_found():
    ours = "mmdcn/csrc/common/cuda/device.cuh(170): warning #128-D: loop is not reachable"
    theirs = "/torch/include/c10/util/x.h(3): warning #20012-D: something else"
    assert registers.warnings(f"{ours}\n{theirs}\n") == [ours]
