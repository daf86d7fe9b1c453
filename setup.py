"""Build of mmdcn: the native operator libraries and OpenMMLab's ``.mim`` folder.

Everything static stands in ``pyproject.toml``; this file holds what needs code. The environment
variables, more about which in docs/install.md and docs/cuda.md:

MMDCN_BUILD_EXT  unset: build the libraries, or warn and install pure Python; 1: a failure is an
                 error; 0: do not build them
FORCE_CUDA       unset: build the one for CUDA where torch has CUDA, nvcc is found, and there is a
                 GPU or TORCH_CUDA_ARCH_LIST; 1: build it without these, too; 0: do not build it
MMDCN_CUDA_HOMES folders of CUDA toolkits, separated by ":": build one for each, for all GPUs; they
                 may be of other versions than torch's, as those in wheels are
MMDCN_SANITIZE   address,undefined for instance: what ``make sanitize`` watches for
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
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
BUILD_EXT = os.environ.get("MMDCN_BUILD_EXT", "").strip().lower() or "auto"
FORCE_CUDA = os.environ.get("FORCE_CUDA", "").strip()
CUDA_HOMES = [home for home in os.environ.get("MMDCN_CUDA_HOMES", "").split(":") if home]
ARCHITECTURES = os.environ.get("TORCH_CUDA_ARCH_LIST")

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
CUDA_ARCHITECTURES = ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

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
    return [*map(cuda_library, cuda_toolkits()), cpu]


def library(name: str, suffix: str, **options) -> setuptools.Extension:
    """The library built from all files of ``csrc`` with that suffix."""

    def files(*endings: str) -> list[str]:
        found = (PACKAGE / "csrc").rglob("*")
        return sorted(str(p.relative_to(ROOT)) for p in found if p.name.endswith(endings))

    return cpp_extension.CppExtension(
        f"mmdcn.{name}",
        files(suffix, "old_glibc.cpp"),
        include_dirs=[str(PACKAGE / "csrc")],
        depends=files(".h", ".cuh"),
        py_limited_api=True,  # leaves libtorch_python out; no source uses the Python API
        **options,
    )


def cuda_library(toolkit: str) -> setuptools.Extension:
    cpp_extension.CUDA_HOME = toolkit
    major = re.search(r"release (\d+)\.", nvcc(toolkit, "--version"))[1]
    extension = library(
        f"_C_cuda{major}",
        ".cu",
        extra_compile_args={"nvcc": NVCC_FLAGS, "cxx": CXX_FLAGS},
        libraries=["cudart"],
        library_dirs=[str(BUILD), *cpp_extension.library_paths("cuda")],
        # A dependency on libtorch_cuda.so, without which its symbols would not be found. Linkers
        # leave one out that nothing asks for, as nothing asks for the stub.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch_cuda"],
    )
    extension.toolkit = toolkit
    return extension


def cuda_toolkits() -> list[str]:
    """The toolkits with which to build a CUDA library; without any, why, where that is news."""
    if SANITIZERS or FORCE_CUDA == "0":
        return []
    if CUDA_HOMES:
        if torch.version.cuda:
            raise SystemExit("error: MMDCN_CUDA_HOMES needs a CPU build of torch")
        if lacking := [home for home in CUDA_HOMES if not os.path.exists(f"{home}/bin/nvcc")]:
            raise SystemExit(f"error: MMDCN_CUDA_HOMES: there is no {lacking[0]}/bin/nvcc")
        return CUDA_HOMES
    if not (FORCE_CUDA or torch.version.cuda):
        return []
    # A torch without CUDA has not looked for a toolkit.
    home = cpp_extension.CUDA_HOME or cpp_extension._find_cuda_home() or "/usr/local/cuda"
    if not shutil.which("nvcc", path=f"{home}/bin"):
        if FORCE_CUDA == "1":
            raise BuildError(f"FORCE_CUDA=1 needs CUDA_HOME: there is no {home}/bin/nvcc")
        return []
    if FORCE_CUDA == "1" or os.environ.get("TORCH_CUDA_ARCH_LIST") or torch.cuda.is_available():
        return [home]
    choice = "FORCE_CUDA=1 builds for all GPUs, which takes long, TORCH_CUDA_ARCH_LIST=9.0 for some"
    warn("CUDA", f"there is no GPU here to build for; {choice}")
    return []


def nvcc(toolkit: str, *options: str) -> str:
    command = [f"{toolkit}/bin/nvcc", *options]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"error: {error}\nSet CUDA_HOME to another toolkit, or FORCE_CUDA=0 to build without."
        ) from None


def use_toolkit(toolkit: str) -> None:
    """Tell torch with what to compile and, unless that is given or asked of GPUs, for which."""
    cpp_extension.CUDA_HOME = toolkit
    if (FORCE_CUDA == "1" or CUDA_HOMES) and not ARCHITECTURES:
        known = nvcc(toolkit, "--list-gpu-arch").split()
        chosen = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(chosen) + "+PTX"
    if not torch.version.cuda:
        make_cuda_stub()


def warn(library: str, reason: str) -> None:
    text = f"""
WARNING: mmdcn is being installed WITHOUT its {library} operator library:
  {reason}
Where it is missing, the operators run on the plain PyTorch reference, which is much slower.
The build needs torch >= 2.10, ninja, a C++20 compiler and, for CUDA, nvcc in CUDA_HOME. To see
what is missing and to stop at errors, run
  MMDCN_BUILD_EXT=1 pip install --no-build-isolation --no-deps .
"""
    print("\n" + "*" * 88 + text + "*" * 88 + "\n", file=sys.stderr, flush=True)


def make_cuda_stub() -> None:
    """An empty libtorch_cuda.so to link with, for a torch that has none."""
    BUILD.mkdir(exist_ok=True)
    command = [os.environ.get("CXX", "c++"), "-shared", "-x", "c++", "/dev/null"]
    command += ["-Wl,-soname,libtorch_cuda.so", "-o", BUILD / "libtorch_cuda.so"]
    subprocess.run(command, check=True)


@contextlib.contextmanager
def output_to(log: Path):
    """Send what this process and the compilers write to a file; pip shows all or nothing of it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def what_failed(log: Path, error: Exception) -> str:
    """The lines that matter of a compiler's output: its first errors, or else the last lines."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    found = [line for line in lines if re.search(r"\b(error|undefined reference)\b", line)]
    shown = found[:3] or lines[-3:]
    return "\n".join([*shown, f"({type(error).__name__}: {error}; all of the output: {log})"])


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
            self.extensions = []

    def build_extensions(self):
        wanted, built, objects = self.extensions, [], self.build_temp
        for extension in wanted:
            self.extensions = [extension]
            kind = "native" if extension is wanted[-1] else "CUDA"
            name = extension.name.split(".")[-1]
            self.build_temp = f"{objects}/{name}"  # their object files have the same names
            log = Path(self.build_temp, "build.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            try:
                if kind == "CUDA":
                    use_toolkit(extension.toolkit)
                with output_to(log):
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
                reason = what_failed(log, error)
                if BUILD_EXT == "1":
                    raise SystemExit(f"error: the {kind} library was not built\n{reason}") from None
                warn(kind, reason)
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
        # What a build without a compiler leaves is a package for any machine.
        self.root_is_pure |= not self.get_finalized_command("build_ext").extensions
        if self.root_is_pure:
            return "py3", "none", "any"
        return "py3", "none", super().get_tag()[2]  # no Python API in the library

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        """Adds ``.mim``, where ``mim`` looks for configs and tools.

        Package data cannot: setuptools has no name for a package that starts with a dot, and with
        links in ``mmdcn/.mim`` mim would find every config of an editable install twice.
        """
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        metadata = Path(wheelfile_base)
        package = metadata.parent / PACKAGE.name
        if not package.exists():
            # Editable: mim has to look at the root of the sources. onedl-mim asks pip where it is,
            # openmim joins site-packages and the first name here, where an absolute path wins.
            (metadata / "top_level.txt").write_text(f"{ROOT}\n{PACKAGE.name}\n")
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
    objects = str(BUILD / ("sanitize" if SANITIZERS else f"ext.{sysconfig.get_platform()}"))
    setuptools.setup(
        ext_modules=libraries,
        cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
        options={"build_ext": {"build_temp": objects}},
    )


if __name__ == "__main__":  # as pip runs it, too
    main()
