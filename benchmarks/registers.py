"""Registers, stack and spills of the CUDA kernels: ``python -m benchmarks.registers``.

Compiles every ``.cu`` file for each architecture with the flags of the build, which takes nvcc but
no GPU, and prints what ptxas reports, as a table. The exit status is 1 if nvcc warns about a file
of ours or a kernel needs more than is allowed: no stack and no spills anywhere, and, computing in
float32, at most 64 registers in forward and 96 in backward kernels.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "mmdcn" / "csrc"
DTYPES = {"float": "float32", "double": "float64", "Half": "float16", "BFloat16": "bfloat16"}
FORWARD_KERNELS = ("forward_kernel", "columns_kernel", "check_kernel")
FORWARD_LIMIT, BACKWARD_LIMIT = 64, 96


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one instance of a kernel.

    Attributes:
        source: name of the file without ``_cuda.cu``: an operator, or what operators share.
        name: of the template.
        dtype: first template argument.
        architecture: such as ``sm_90``.
        registers: of a thread.
        stack, spills: bytes of a thread.
    """

    source: str
    name: str
    dtype: str
    architecture: str
    registers: int
    stack: int
    spills: int

    @property
    def limit(self) -> int | None:
        """Registers it may use; None where the limit is that it launches."""
        if self.dtype == "float64":
            return None
        return FORWARD_LIMIT if self.name.endswith(FORWARD_KERNELS) else BACKWARD_LIMIT

    @property
    def fits(self) -> bool:
        return not self.stack and not self.spills and self.registers <= (self.limit or 255)


def parse(source: str, log: str) -> Iterator[Kernel]:
    """The kernels in the output of ``nvcc -Xptxas -v``, with the properties of all functions."""
    blocks = re.split(r"Compiling entry function '(\w+)' for '(sm_\w+)'", log)[1:]
    for symbol, architecture, text in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
        name, dtype = _demangled(symbol)
        # Functions that are not inlined have stack frames of their own.
        frames = [
            tuple(map(int, numbers))
            for numbers in re.findall(
                r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text
            )
        ]
        yield Kernel(
            source=source,
            name=name,
            dtype=dtype,
            architecture=architecture,
            registers=int(re.search(r"Used (\d+) registers", text)[1]),
            stack=max(stack for stack, _, _ in frames),
            spills=max(stores + loads for _, stores, loads in frames),
        )


def _demangled(symbol: str) -> tuple[str, str]:
    """Name and dtype of a kernel."""
    command = ["c++filt", symbol]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    name, argument = re.search(r"(\w+)<(?:\w+::)*(\w+)", text).groups()
    return name, DTYPES[argument]


def warnings(log: str) -> list[str]:
    """The lines of a compiler's output that warn about a file of ours."""
    return [
        line
        for line in log.splitlines()
        if re.search(r"\b(warning|error)\b", line) and ("mmdcn" in line or "ptxas" in line)
    ]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc", path=f"{home}/bin") or shutil.which("nvcc")


def compile_file(source: Path, architecture: str) -> str:
    """Compile a file with the flags of the build and return what nvcc prints."""
    flags = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["NVCC_FLAGS"]
    with tempfile.TemporaryDirectory() as folder:
        command = [find_nvcc() or "nvcc", "-c", str(source), "-o", f"{folder}/kernels.o", *flags]
        command += ["-Xcompiler=-fPIC", "--expt-relaxed-constexpr", "-Xptxas=-v"]
        command += [f"-I{CSRC}", f"-I{Path(torch.__file__).parent / 'include'}"]
        command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}"]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    if result.returncode:
        raise RuntimeError(f"nvcc failed on {source}:\n{result.stdout}")
    return result.stdout


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(kernels: list[Kernel]) -> str:
    """As Markdown: the most that any width of vectors needs, for each dtype."""
    architectures = sorted({k.architecture for k in kernels}, key=lambda name: int(name[3:]))
    dtypes = list(DTYPES.values())
    lines = [
        _row(["Source", "Kernel", "Limit", *architectures]),
        _row([":--", ":--", "--:", *["--:"] * len(architectures)]),
    ]
    for source, name in sorted({(k.source, k.name) for k in kernels}):
        own = [k for k in kernels if (k.source, k.name) == (source, name)]
        cells = [f"`{source}`", f"`{name}`", str(max(k.limit or 0 for k in own))]
        for architecture in architectures:
            most = [
                max(
                    (k.registers for k in own if (k.architecture, k.dtype) == (architecture, d)),
                    default=None,
                )
                for d in dtypes
            ]
            cells.append(" / ".join("–" if n is None else str(n) for n in most))
        lines.append(_row(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.registers", description=__doc__)
    parser.add_argument("architectures", nargs="*", default=["80", "90", "120"])
    architectures = parser.parse_args().architectures
    sources = sorted(CSRC.rglob("*.cu"))
    jobs = [(source, a) for a in architectures for source in sources]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        logs = list(pool.map(lambda job: compile_file(*job), jobs))
    kernels, complaints = [], []
    for (source, _), log in zip(jobs, logs, strict=True):
        kernels += parse(source.stem.removesuffix("_cuda"), log)
        complaints += warnings(log)
    complaints += [f"needs too much: {kernel}" for kernel in kernels if not kernel.fits]
    print(f"Registers, {' / '.join(DTYPES.values())}; the limit is for all but float64:\n")
    print(table(kernels))
    print(f"\n{len(kernels)} kernels, {len(complaints)} complaints")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
