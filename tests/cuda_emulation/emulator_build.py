"""Builds the emulated CUDA library: the kernels and their host code, compiled for the CPU.

The result has the name of the CPU library, so that ``MMDCN_LIBRARY_DIR`` puts it in its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "mmdcn" / "csrc"
BUILD = ROOT / "build" / "cuda_emulation"
TORCH = Path(torch.__file__).parent

FLAGS = [
    "-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Wno-attributes",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
    "-fno-strict-aliasing", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000",
    "-DTORCH_STABLE_ONLY", f"-I{HERE / 'include'}", f"-I{CSRC}", f"-I{TORCH / 'include'}",
]  # fmt: skip


def sources() -> list[Path]:
    """All kernels, the schemas (named like their folders), and the emulator itself."""
    schemas = [path for path in CSRC.rglob("*.cpp") if path.stem == path.parent.name]
    return [*CSRC.rglob("*.cu"), *schemas, *HERE.glob("*.cpp"), *HERE.glob("*.cu")]


def build() -> Path:
    """Compile what is out of date and return the folder with the library."""
    BUILD.mkdir(parents=True, exist_ok=True)
    headers = [
        p for folder in (CSRC, HERE) for p in folder.rglob("*") if p.suffix in (".h", ".cuh")
    ]
    newest = max(path.stat().st_mtime for path in [*headers, Path(__file__)])
    compiler = os.environ.get("CXX", "g++")
    commands, objects = [], []
    for source in sorted(sources()):
        target = BUILD / f"{source.stem}.o"
        objects.append(target)
        if target.exists() and target.stat().st_mtime > max(newest, source.stat().st_mtime):
            continue
        commands.append([compiler, *FLAGS, "-x", "c++", "-c", str(source), "-o", str(target)])
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        list(pool.map(_run, commands))
    library = BUILD / "_C.so"
    if commands or not library.exists():
        # -Bsymbolic: what the emulator defines stands before torch's functions of the same name.
        _run([
            compiler, "-shared", "-fsanitize=address,undefined", "-Wl,-Bsymbolic", "-o",
            str(library), *map(str, objects), f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-ltorch",
            "-lc10", "-ldl",
        ])  # fmt: skip
    return BUILD


def environment() -> dict[str, str]:
    """Environment of a process that uses the emulated library."""
    compiler = os.environ.get("CXX", "g++")

    def runtime(name: str) -> str:
        command = [compiler, f"-print-file-name={name}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return {
        **os.environ,
        "MMDCN_LIBRARY_DIR": str(BUILD),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=97",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    if result.stderr:
        print(result.stderr, file=sys.stderr)


if __name__ == "__main__":
    print(build())
