"""Build of mmdcn: the native operator libraries and OpenMMLab's ``.mim`` folder.

Everything static stands in ``pyproject.toml``; this file holds what needs code. The environment
variables, more about which in docs/install.md and docs/cuda.md:

MMDCN_BUILD_EXT  unset: build the libraries, or warn and install pure Python; 1: a failure is an
                 error; 0: do not build them
FORCE_CUDA       unset: build the one for CUDA where torch has CUDA, nvcc is found, and there is a
                 GPU or TORCH_CUDA_ARCH_LIST; 1: build it without these, too; 0: do not build it
MMDCN_SANITIZE   address,undefined for instance: what ``make sanitize`` watches for
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
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402 (old ones do not have it)

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "mmdcn"
BUILD = ROOT / "build"
BUILD_EXT = os.environ.get("MMDCN_BUILD_EXT", "auto").strip().lower()
FORCE_CUDA = os.environ.get("FORCE_CUDA", "").strip()

# The stable ABI of torch 2.10: one binary runs with every later torch and every Python.
FLAGS = ["-O3", "-std=c++20", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
HOST_FLAGS = ["-fvisibility=hidden", "-Wall", "-Wno-psabi"]
# Without errno and traps of scalar maths the loops over sampling points vectorise.
CXX_FLAGS = [*FLAGS, *HOST_FLAGS, "-g0", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = [*FLAGS, f"-Xcompiler={','.join(HOST_FLAGS)}", "-DUSE_CUDA", "-Xfatbin=-compress-all"]
SANITIZE_FLAGS = []
if SANITIZERS := os.environ.get("MMDCN_SANITIZE"):
    SANITIZE_FLAGS = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"]
    CXX_FLAGS += ["-O1", "-g1", "-fno-omit-frame-pointer", *SANITIZE_FLAGS]
# With FORCE_CUDA=1. The last one also as PTX, from which a driver compiles for later GPUs.
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

torch, build_command = None, build_ext
if BUILD_EXT != "0":
    try:
        import torch
        from torch.utils import cpp_extension

        build_command = cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)
    except ImportError as error:
        why_no_torch = error


class BuildError(RuntimeError):
    """The native libraries cannot be built here."""


def native_libraries() -> list[setuptools.Extension]:
    """Plain shared libraries for ``torch.ops.load_library``, the one for the CPU last."""
    if torch is None:
        raise BuildError(
            f"the build needs torch, which this build environment does not have ({why_no_torch}).\n"
            "Install torch first, then build in the environment that has it:\n"
            "  pip install --no-build-isolation ...\n"
            "MMDCN_BUILD_EXT=0 installs pure Python, with slow reference operators."
        )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
        raise BuildError(f"the library needs torch >= 2.10, found {torch.__version__}")
    flags = {"cxx": CXX_FLAGS}
    cpu = library("_C", ".cpp", extra_compile_args=flags, extra_link_args=SANITIZE_FLAGS)
    return [cuda_library(), cpu] if prepare_cuda() else [cpu]


def library(name: str, suffix: str, **options) -> setuptools.Extension:
    """The library built from all files of ``csrc`` with that suffix."""

    def files(*suffixes: str) -> list[str]:
        found = (PACKAGE / "csrc").rglob("*")
        return sorted(str(p.relative_to(ROOT)) for p in found if p.suffix in suffixes)

    return cpp_extension.CppExtension(
        f"mmdcn.{name}",
        files(suffix),
        include_dirs=[str(PACKAGE / "csrc")],
        depends=files(".h", ".cuh"),
        py_limited_api=True,  # leaves libtorch_python out; no source uses the Python API
        **options,
    )


def cuda_library() -> setuptools.Extension:
    return library(
        "_C_cuda",
        ".cu",
        extra_compile_args={"nvcc": NVCC_FLAGS},
        libraries=["cudart"],
        library_dirs=[str(BUILD), *cpp_extension.library_paths("cuda")],
        # A dependency on libtorch_cuda.so, without which its symbols would not be found. Linkers
        # leave one out that nothing asks for, as nothing asks for the stub.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch_cuda"],
    )


def prepare_cuda() -> bool:
    """Whether to build the CUDA library. If so, torch is told with what and for what."""
    if SANITIZERS or FORCE_CUDA == "0" or not (FORCE_CUDA or torch.version.cuda):
        return False
    # A torch without CUDA has not looked for a toolkit.
    home = cpp_extension.CUDA_HOME or cpp_extension._find_cuda_home() or "/usr/local/cuda"
    nvcc = shutil.which("nvcc", path=f"{home}/bin")
    if not nvcc:
        if FORCE_CUDA == "1":
            raise BuildError(f"FORCE_CUDA=1 needs CUDA_HOME: there is no {home}/bin/nvcc")
        return False
    cpp_extension.CUDA_HOME = home
    if FORCE_CUDA == "1" and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        command = [nvcc, "--list-gpu-arch"]
        known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        chosen = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(chosen) + "+PTX"
    if os.environ.get("TORCH_CUDA_ARCH_LIST") or torch.cuda.is_available():
        return True
    choice = "FORCE_CUDA=1 builds for all GPUs, which takes long, TORCH_CUDA_ARCH_LIST=9.0 for some"
    warn("CUDA", f"there is no GPU here to build for; {choice}")
    return False


def warn(library: str, reason: str) -> None:
    text = f"""
WARNING: mmdcn is being installed WITHOUT its {library} operator library:
  {reason}
Where it is missing, the operators run on the plain PyTorch reference, which is much slower.
The build needs torch >= 2.10, ninja, a C++20 compiler and, for CUDA, nvcc in CUDA_HOME. To see
what it does and to stop at errors, run
  MMDCN_BUILD_EXT=1 pip install -v --no-build-isolation --no-deps .
"""
    print("\n" + "*" * 88 + text + "*" * 88 + "\n", file=sys.stderr, flush=True)


def make_cuda_stub() -> None:
    """An empty libtorch_cuda.so to link with, for a torch that has none."""
    BUILD.mkdir(exist_ok=True)
    command = [os.environ.get("CXX", "c++"), "-shared", "-x", "c++", "/dev/null"]
    command += ["-Wl,-soname,libtorch_cuda.so", "-o", BUILD / "libtorch_cuda.so"]
    subprocess.run(command, check=True)


class BuildExt(build_command):
    """Torch's command (ninja, header tracking), which goes on without a library that fails."""

    failure: BuildError | None = None  # to be reported at build time, not when asked for metadata

    def run(self):
        if not self.failure:
            super().run()
        elif BUILD_EXT == "1" or torch is None:
            # pip would hide a warning, and most likely torch is outside its isolated environment.
            raise SystemExit(f"error: {self.failure}")
        else:
            warn("native", str(self.failure))

    def build_extensions(self):
        wanted, built = self.extensions, []
        for extension in wanted:
            self.extensions = [extension]
            kind = "native" if extension is wanted[-1] else "CUDA"
            try:
                if kind == "CUDA" and not torch.version.cuda:
                    make_cuda_stub()
                super().build_extensions()
                built.append(extension)
            except Exception as error:  # whatever the reason is, the package works without
                if "mismatches the version" in str(error):  # which CUDA is meant cannot be guessed
                    raise SystemExit(
                        f"error: {error.args[0] % error.args[1:]}\n"
                        f"Set CUDA_HOME, now {cpp_extension.CUDA_HOME}, to a toolkit of torch's "
                        "version, install a torch for this one,\n"
                        "or set FORCE_CUDA=0 to build without CUDA."
                    ) from error
                if BUILD_EXT == "1":
                    raise
                warn(kind, f"{type(error).__name__}: {error}")
        self.extensions = built  # there is nothing else to copy or record

    def copy_extensions_to_source(self):
        for stale in PACKAGE.glob("_C*.so"):
            stale.unlink()
        super().copy_extensions_to_source()


class BdistWheel(bdist_wheel):
    def run(self):
        # setuptools reuses this folder: a module deleted from the sources would stay in there.
        shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)
        super().run()

    def get_tag(self):
        if self.root_is_pure:
            return super().get_tag()
        return "py3", "none", super().get_tag()[2]  # no Python API in the library

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        """Adds ``.mim``, where ``mim`` looks for configs and tools.

        Package data cannot: setuptools has no name for a package that starts with a dot, and with
        links in ``mmdcn/.mim`` mim would find every config of an editable install twice.
        """
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        metadata = Path(wheelfile_base)
        package = metadata.parent / PACKAGE.name
        if not package.exists():  # editable: mim looks at the root of the sources
            return
        ignore = shutil.ignore_patterns("__pycache__", "*.py[cod]")
        # onedl-mim takes the folder of the first path in RECORD for the package. pip sorts RECORD,
        # and "mmdcn-<version>.dist-info/" sorts before "mmdcn/". openmim takes the package itself.
        for folder in (metadata, package):
            for name in ("configs", "tools"):
                shutil.copytree(ROOT / name, folder / ".mim" / name, ignore=ignore)
            shutil.copy2(ROOT / "model-index.yml", folder / ".mim")


def main() -> None:
    if BUILD_EXT not in ("auto", "0", "1"):
        raise SystemExit(f"error: MMDCN_BUILD_EXT must be 0, 1 or unset, got {BUILD_EXT!r}")
    if FORCE_CUDA not in ("", "0", "1"):
        raise SystemExit(f"error: FORCE_CUDA must be 0, 1 or unset, got {FORCE_CUDA!r}")
    try:
        libraries = native_libraries() if BUILD_EXT != "0" else []
    except BuildError as error:
        libraries = [setuptools.Extension("mmdcn._C", [])]  # so that build_ext runs
        BuildExt.failure = error
    # pip builds in a new temporary folder each time; a lasting one keeps rebuilds short.
    objects = str(BUILD / ("sanitize" if SANITIZERS else "ext"))
    setuptools.setup(
        ext_modules=libraries,
        cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
        options={"build_ext": {"build_temp": objects}},
    )


if __name__ == "__main__":  # as pip runs it, too
    main()
