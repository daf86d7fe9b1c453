"""Build of mmdcn: the native operator library and OpenMMLab's ``.mim`` folder.

Everything static stands in ``pyproject.toml``; this file holds what needs code.

``MMDCN_BUILD_EXT`` says what happens to the native library:
    unset  build it; without a working compiler or torch >= 2.10, warn and install pure Python,
           which runs the slow reference operators
    1      build it; a failure is an error
    0      do not build it

``FORCE_CUDA`` says what happens to the CUDA library:
    unset  build it where torch has CUDA and nvcc is found, for the GPUs of this machine; without
           one only if ``TORCH_CUDA_ARCH_LIST`` is set
    1      build it, for all architectures; torch may be without CUDA, and no GPU is needed
    0      do not build it
``TORCH_CUDA_ARCH_LIST`` chooses the GPU architectures instead, as everywhere in PyTorch.

``MMDCN_SANITIZE=address,undefined`` instruments the library for ``make sanitize``.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"error: mmdcn needs setuptools >= 77 to build, found {setuptools.__version__}: "
        'pip install "setuptools>=77,<81" (mmengine needs < 81)'
    )
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402

ROOT = Path(__file__).resolve().parent
PACKAGE = "mmdcn"
CSRC = Path(PACKAGE, "csrc")
BUILD_EXT = os.environ.get("MMDCN_BUILD_EXT", "auto").strip().lower()

MIN_TORCH = (2, 10)
# The stable ABI of torch 2.10: one binary runs with every later torch and every Python.
STABLE_ABI_FLAGS = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
# Without errno and traps of scalar maths the loops over sampling points vectorise.
MATH_FLAGS = ["-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS = [
    "-O3",
    "-g0",
    "-std=c++20",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
    *MATH_FLAGS,
    *STABLE_ABI_FLAGS,
]
NVCC_FLAGS = [
    "-O3",
    "-std=c++20",
    "-DUSE_CUDA",
    "-Xcompiler=-fvisibility=hidden,-Wall,-Wno-psabi",
    "-Xfatbin=-compress-all",
    *STABLE_ABI_FLAGS,
]
# With FORCE_CUDA=1. The last one also as PTX, from which a driver compiles for later GPUs.
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
FORCE_CUDA = os.environ.get("FORCE_CUDA", "").strip()
CUDA_STUBS = ROOT / "build" / "cuda_stubs"
SANITIZERS = os.environ.get("MMDCN_SANITIZE")
SANITIZE_FLAGS = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"] if SANITIZERS else []
DEBUG_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer"] if SANITIZERS else []


class BuildError(RuntimeError):
    """The native library cannot be built here."""


class TorchMissing(BuildError):
    """An error even where the library is optional: pip would hide the warning, and the user most
    likely has torch, outside pip's isolated build environment."""


class CudaMismatch(BuildError):
    """An error even where the library is optional: which CUDA is meant cannot be guessed."""


def csrc_files(*suffixes: str) -> list[str]:
    """Files under ``mmdcn/csrc`` with one of the suffixes, relative to the root, without tests."""
    found = (p.relative_to(ROOT) for p in (ROOT / CSRC).rglob("*") if p.suffix in suffixes)
    return sorted(str(p) for p in found if not {"test", "tests"} & set(p.parts))


def native_extensions() -> list:
    """The native libraries: plain shared libraries for ``torch.ops.load_library``."""
    try:
        import torch
        from torch.utils.cpp_extension import CppExtension
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
    sources = csrc_files(".cpp")
    if not sources:
        raise BuildError(f"there is no .cpp file under {CSRC}")
    cpu = CppExtension(
        f"{PACKAGE}._C",
        sources,
        include_dirs=[str(ROOT / CSRC)],
        extra_compile_args={"cxx": [*CXX_FLAGS, *DEBUG_FLAGS, *SANITIZE_FLAGS]},
        extra_link_args=SANITIZE_FLAGS,
        depends=csrc_files(".h"),
        py_limited_api=True,  # leaves libtorch_python out; no source uses the Python API
    )
    toolkit = None if SANITIZERS else find_cuda_toolkit()
    return [cpu, cuda_extension(toolkit)] if toolkit else [cpu]


def cuda_home() -> Path | None:
    """Where CUDA is installed, if it is."""
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return Path(home)
    nvcc = shutil.which("nvcc")
    if not nvcc:
        return Path("/usr/local/cuda")
    # It may be a link or a script that stands somewhere else, but it knows its folder.
    plan = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    return Path(top[1]).resolve() if top else Path(nvcc).parents[1]


def find_cuda_toolkit() -> Path | None:
    """Where CUDA is installed, or None if the CUDA library shall not be built."""
    import torch

    if FORCE_CUDA == "0" or (FORCE_CUDA != "1" and not torch.version.cuda):
        return None
    home = cuda_home()
    nvcc = home / "bin" / "nvcc"
    if not nvcc.exists():
        if FORCE_CUDA == "1":
            raise BuildError(f"FORCE_CUDA=1 needs nvcc, and there is no {nvcc}; set CUDA_HOME")
        return None
    chosen = FORCE_CUDA == "1" or os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not chosen and not torch.cuda.is_available():
        warn(
            "CUDA",
            "there is no GPU here to build for",
            "For all GPUs, which takes long, run\n"
            "  FORCE_CUDA=1 pip install -v --no-build-isolation --no-deps .\n"
            "or, with the architectures that you have, TORCH_CUDA_ARCH_LIST=9.0 in place of that.",
        )
        return None
    version = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", version)
    if not release:
        raise BuildError(f"{nvcc} --version names no release: {version}")
    if torch.version.cuda and torch.version.cuda.split(".")[0] != release[1]:
        raise CudaMismatch(
            f"nvcc ({nvcc}) is of CUDA {release[1]}.{release[2]}, but torch {torch.__version__} is "
            f"built for CUDA {torch.version.cuda}: the major versions must be the same.\n"
            "Install that toolkit and set CUDA_HOME to it, or install a torch for this one, or set "
            "FORCE_CUDA=0\nto build without CUDA."
        )
    return home


def cuda_extension(toolkit: Path):
    """The CUDA library. Where torch is without CUDA, a stand-in for torch's is linked."""
    from torch.utils import cpp_extension

    if FORCE_CUDA == "1" and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        nvcc = [toolkit / "bin" / "nvcc", "--list-gpu-arch"]
        known = subprocess.run(nvcc, check=True, capture_output=True, text=True).stdout.split()
        chosen = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(chosen) + "+PTX"
    cpp_extension.CUDA_HOME = str(toolkit)  # None in a torch without CUDA
    extension = cpp_extension.CUDAExtension(
        f"{PACKAGE}._C_cuda",
        csrc_files(".cu"),
        include_dirs=[str(ROOT / CSRC)],
        library_dirs=[str(CUDA_STUBS)],
        extra_compile_args={"nvcc": NVCC_FLAGS},
        # A dependency on libtorch_cuda.so, without which its symbols would not be found. Linkers
        # leave one out that nothing asks for, as nothing asks for the stub.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch_cuda"],
        depends=csrc_files(".h", ".cuh"),
        py_limited_api=True,
    )
    extension.libraries.remove("torch_cuda")  # see above
    extension.libraries.remove("c10_cuda")  # none of its symbols is used
    return extension


def make_cuda_stub() -> None:
    """An empty libtorch_cuda.so to link with, where torch has none."""
    import torch

    name = "libtorch_cuda.so"
    if (Path(torch.__file__).parent / "lib" / name).exists():
        return
    CUDA_STUBS.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CXX", "c++"), "-shared", f"-Wl,-soname,{name}", "-x", "c++"]
    subprocess.run([*command, "/dev/null", "-o", CUDA_STUBS / name], check=True)


def torch_build_ext() -> type:
    """Torch's ``build_ext`` (ninja, header tracking), made optional and incremental."""
    from torch.utils.cpp_extension import BuildExtension

    class TorchBuildExt(BuildExtension):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, no_python_abi_suffix=True, **kwargs)

        def finalize_options(self):
            super().finalize_options()
            # pip builds in a new temporary folder each time; a lasting one keeps rebuilds short.
            self.build_temp = str(ROOT / "build" / ("sanitize" if SANITIZERS else "ext"))

        def run(self):
            with_cuda = len(self.extensions) > 1
            if with_cuda:
                make_cuda_stub()
            if BUILD_EXT == "1":
                super().run()
                return
            try:
                super().run()
            except Exception as error:  # whatever the reason is, the package works without
                reason = f"{type(error).__name__}: {error}"
                if with_cuda and FORCE_CUDA != "1":
                    warn("CUDA", reason)
                    self.extensions = self.extensions[:1]
                    self.run()
                    return
                warn("native", reason)
                self.extensions = []  # nothing to copy or record afterwards
                if self.inplace or self.editable_mode:
                    for stale in (ROOT / PACKAGE).glob("_C*.so"):
                        stale.unlink()

    return TorchBuildExt


class FailingBuildExt(build_ext):
    """Reports at build time, and not when metadata is asked for, why there is no library."""

    reason: BuildError

    def run(self):
        if BUILD_EXT == "1" or isinstance(self.reason, TorchMissing | CudaMismatch):
            raise SystemExit(f"error: {self.reason}")
        warn("native", str(self.reason))


REMEDY = (
    "For the library, install\ntorch >= 2.10, ninja and a C++20 compiler, then run\n"
    "  MMDCN_BUILD_EXT=1 pip install -v --no-build-isolation --no-deps ."
)


def warn(library: str, reason: str, remedy: str = REMEDY) -> None:
    bar = "*" * 88
    print(
        f"\n{bar}\nWARNING: mmdcn is being installed WITHOUT its {library} operator library:\n"
        f"  {reason}\n"
        "Where it is missing, the operators run on the plain PyTorch reference, which is much\n"
        f"slower. {remedy}\n{bar}\n",
        file=sys.stderr,
        flush=True,
    )


def copy_mim(destination: Path) -> None:
    """Copy what ``mim`` looks up in an installed package."""
    shutil.rmtree(destination, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.py[cod]")
    for folder in ("configs", "tools"):
        shutil.copytree(ROOT / folder, destination / folder, ignore=ignore)
    shutil.copy2(ROOT / "model-index.yml", destination)


class BuildPy(build_py):
    """Adds ``mmdcn/.mim`` to a built package; an editable install serves the root's folders."""

    def run(self):
        if not self.editable_mode:
            # setuptools reuses build/lib: a module deleted from the sources would stay in there.
            shutil.rmtree(Path(self.build_lib, PACKAGE), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            copy_mim(Path(self.build_lib, PACKAGE, ".mim"))


class BdistWheel(bdist_wheel):
    def get_tag(self):
        if self.root_is_pure:
            return super().get_tag()
        return "py3", "none", super().get_tag()[2]  # no Python API in the library

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        if "editable_wheel" in self.distribution.commands:
            return
        # onedl-mim takes the folder of the first path in RECORD for the package. pip sorts RECORD,
        # and "mmdcn-<version>.dist-info/" sorts before "mmdcn/", so mim looks in here.
        copy_mim(Path(wheelfile_base, ".mim"))


def main() -> None:
    if BUILD_EXT not in ("auto", "0", "1"):
        raise SystemExit(f"error: MMDCN_BUILD_EXT must be 0, 1 or unset, got {BUILD_EXT!r}")
    if FORCE_CUDA not in ("", "0", "1"):
        raise SystemExit(f"error: FORCE_CUDA must be 0, 1 or unset, got {FORCE_CUDA!r}")
    commands = {"build_py": BuildPy, "bdist_wheel": BdistWheel}
    extensions = []
    if BUILD_EXT != "0":
        try:
            extensions = native_extensions()
            commands["build_ext"] = torch_build_ext()
        except BuildError as error:
            extensions = [setuptools.Extension(f"{PACKAGE}._C", [])]  # so that build_ext runs
            FailingBuildExt.reason = error
            commands["build_ext"] = FailingBuildExt
    setuptools.setup(ext_modules=extensions, cmdclass=commands)


if __name__ == "__main__":  # as pip runs it, too
    main()
