"""Build of mmdcn: the native operator libraries and OpenMMLab's ``.mim`` folder.

Everything static stands in ``pyproject.toml``; this file holds what needs code.

``MMDCN_BUILD_EXT`` says what happens to the native libraries:
    unset  build them; without a working compiler or torch >= 2.10, warn and install pure Python,
           which runs the slow reference operators
    1      build them; a failure is an error
    0      do not build them

``FORCE_CUDA`` says what happens to the one for CUDA:
    unset  build it where torch has CUDA and nvcc is found, for the GPUs of this machine; without
           one only if ``TORCH_CUDA_ARCH_LIST`` is set
    1      build it, for all architectures; torch may be without CUDA, and no GPU is needed
    0      do not build it
``TORCH_CUDA_ARCH_LIST`` chooses the GPU architectures instead, as everywhere in PyTorch.

``MMDCN_SANITIZE=address,undefined`` instruments the library for ``make sanitize``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools
from setuptools.command.build_ext import build_ext

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"error: mmdcn needs setuptools >= 77 to build, found {setuptools.__version__}: "
        'pip install "setuptools>=77,<81" (mmengine needs < 81)'
    )
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402 (older ones do not have it)

ROOT = Path(__file__).resolve().parent
PACKAGE = "mmdcn"
CSRC = ROOT / PACKAGE / "csrc"
BUILD = ROOT / "build"
BUILD_EXT = os.environ.get("MMDCN_BUILD_EXT", "auto").strip().lower()
FORCE_CUDA = os.environ.get("FORCE_CUDA", "").strip()
SANITIZERS = os.environ.get("MMDCN_SANITIZE")

MIN_TORCH = (2, 10)
# The stable ABI of torch 2.10: one binary runs with every later torch and every Python.
FLAGS = ["-O3", "-std=c++20", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
HOST_FLAGS = ["-fvisibility=hidden", "-Wall", "-Wno-psabi"]
# Without errno and traps of scalar maths the loops over sampling points vectorise.
CXX_FLAGS = [*FLAGS, *HOST_FLAGS, "-g0", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = [*FLAGS, f"-Xcompiler={','.join(HOST_FLAGS)}", "-DUSE_CUDA", "-Xfatbin=-compress-all"]
SANITIZE_FLAGS = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []
DEBUG_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer"] if SANITIZERS else []
# With FORCE_CUDA=1. The last one also as PTX, from which a driver compiles for later GPUs.
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


class BuildError(RuntimeError):
    """The native libraries cannot be built here."""


class TorchMissing(BuildError):
    """An error even where they are optional: pip would hide the warning, and the user most likely
    has torch, outside pip's isolated build environment."""


def native_libraries() -> list[setuptools.Extension]:
    """Plain shared libraries for ``torch.ops.load_library``, the one for the CPU first."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        raise TorchMissing(
            f"the build needs torch, which this build environment does not have ({error}).\n"
            "Install torch first, then build in the environment that has it:\n"
            "  pip install --no-build-isolation ...\n"
            "MMDCN_BUILD_EXT=0 installs pure Python, with slow reference operators."
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise BuildError(
            f"the library needs torch >= {'.'.join(map(str, MIN_TORCH))}, found {torch.__version__}"
        )

    def files(*suffixes: str) -> list[str]:
        found = (path.relative_to(ROOT) for path in CSRC.rglob("*") if path.suffix in suffixes)
        return sorted(str(path) for path in found)

    def library(name: str, sources: list[str], **options) -> setuptools.Extension:
        return cpp_extension.CppExtension(
            f"{PACKAGE}.{name}",
            sources,
            include_dirs=[str(CSRC)],
            depends=files(".h", ".cuh"),
            py_limited_api=True,  # leaves libtorch_python out; no source uses the Python API
            **options,
        )

    cpu = library(
        "_C",
        files(".cpp"),
        extra_compile_args={"cxx": [*CXX_FLAGS, *DEBUG_FLAGS, *SANITIZE_FLAGS]},
        extra_link_args=SANITIZE_FLAGS,
    )
    if SANITIZERS or not prepare_cuda():
        return [cpu]
    cuda = library(
        "_C_cuda",
        files(".cu"),
        extra_compile_args={"nvcc": NVCC_FLAGS},
        libraries=["cudart"],
        library_dirs=[str(BUILD), *cpp_extension.library_paths("cuda")],
        # A dependency on libtorch_cuda.so, without which its symbols would not be found. Linkers
        # leave one out that nothing asks for, as nothing asks for the stub.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch_cuda"],
    )
    return [cpu, cuda]


def prepare_cuda() -> bool:
    """Whether to build the CUDA library. If so, torch is told with what and for what."""
    import torch
    from torch.utils import cpp_extension

    if FORCE_CUDA == "0" or (FORCE_CUDA != "1" and not torch.version.cuda):
        return False
    # A torch without CUDA has not looked for a toolkit.
    home = cpp_extension.CUDA_HOME or cpp_extension._find_cuda_home()
    nvcc = shutil.which("nvcc", path=f"{home}/bin")
    if not nvcc:
        if FORCE_CUDA == "1":
            raise BuildError(f"FORCE_CUDA=1 needs nvcc, and there is no {home}/bin/nvcc")
        return False
    cpp_extension.CUDA_HOME = home
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return True
    if FORCE_CUDA == "1":
        command = [nvcc, "--list-gpu-arch"]
        known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        chosen = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(chosen) + "+PTX"
        return True
    if not torch.cuda.is_available():
        warn(
            "CUDA",
            "there is no GPU here to build for",
            "For all GPUs, which takes long, run\n"
            "  FORCE_CUDA=1 pip install -v --no-build-isolation --no-deps .\n"
            "or, with the architectures that you have, TORCH_CUDA_ARCH_LIST=9.0 in place of that.",
        )
    return torch.cuda.is_available()
