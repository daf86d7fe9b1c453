"""What setup.py decides about the CUDA library, with scripts that answer as nvcc does."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

NVCC = """#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V{release}.105" ;;
--list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_90\\ncompute_121\\n' ;;
--dryrun) echo '#$ TOP={top}' >&2 ;;
esac
"""
VARIABLES = ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST")


def write_nvcc(folder: Path, release: str, top: Path | str = "") -> Path:
    """A toolkit in ``folder``; its compiler says that it is installed in ``top``."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(NVCC.format(release=release, top=top))
    nvcc.chmod(0o755)
    return folder


@pytest.fixture
def setup(root, monkeypatch):
    """Functions of setup.py, for given environment variables and a torch with or without CUDA."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def load(torch_cuda: str | None, gpu: bool = False, **environment) -> SimpleNamespace:
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        return SimpleNamespace(**runpy.run_path(str(root / "setup.py"), run_name="setup"))

    return load


def architectures(monkeypatch, setup, toolkit) -> str | None:
    """TORCH_CUDA_ARCH_LIST when PyTorch reads it."""
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)  # put back afterwards
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", os.environ.get("TORCH_CUDA_ARCH_LIST", ""))
    extension = setup.cuda_extension(toolkit)
    assert any(source.endswith("dcnv3_cuda.cu") for source in extension.sources)
    return os.environ["TORCH_CUDA_ARCH_LIST"] or None


def test_visible_gpus_choose_the_architectures(setup, monkeypatch, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup("12.6", gpu=True, CUDA_HOME=toolkit)
    assert module.find_cuda_toolkit() == toolkit
    assert architectures(monkeypatch, module, toolkit) is None  # PyTorch asks the GPUs


def test_without_a_gpu_it_is_left_out_and_says_so(setup, tmp_path, capsys):
    module = setup("12.6", CUDA_HOME=write_nvcc(tmp_path, "12.8"))
    assert module.find_cuda_toolkit() is None
    assert "WITHOUT its CUDA operator library" in (text := capsys.readouterr().err)
    assert "FORCE_CUDA=1" in text and "TORCH_CUDA_ARCH_LIST" in text


def test_a_list_of_architectures_is_honoured_without_a_gpu(setup, monkeypatch, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup("12.6", CUDA_HOME=toolkit, TORCH_CUDA_ARCH_LIST="8.6;9.0")
    assert module.find_cuda_toolkit() == toolkit
    assert architectures(monkeypatch, module, toolkit) == "8.6;9.0"


@pytest.mark.parametrize("torch_cuda", [None, "12.6"])
def test_forced_without_a_gpu_for_all_that_nvcc_knows(setup, monkeypatch, tmp_path, torch_cuda):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup(torch_cuda, CUDA_HOME=toolkit, FORCE_CUDA="1")
    assert module.find_cuda_toolkit() == toolkit
    assert architectures(monkeypatch, module, toolkit) == "7.5;8.0;9.0+PTX"


def test_forced_with_a_list(setup, monkeypatch, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup(None, CUDA_HOME=toolkit, FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    assert module.find_cuda_toolkit() == toolkit
    assert architectures(monkeypatch, module, toolkit) == "9.0"


@pytest.mark.parametrize("default", ["--as-needed", "--no-as-needed"])
def test_library_depends_on_that_of_torch(setup, monkeypatch, tmp_path, default):
    """Whatever the linker does with libraries of which no symbol is used."""
    module = setup(None, FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)  # put back afterwards
    extension = module.cuda_extension(write_nvcc(tmp_path / "toolkit", "12.8"))
    module.make_cuda_stub.__globals__["CUDA_STUBS"] = tmp_path
    module.make_cuda_stub()
    library = tmp_path / "library.so"
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, f"-Wl,{default}", "-shared", "-x", "c++", "/dev/null", "-x", "none"]
    folders = [tmp_path, Path(torch.__file__).parent / "lib"]
    command += ["-o", library, *(f"-L{folder}" for folder in folders)]
    subprocess.run([*command, *extension.extra_link_args], check=True)
    needed = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True)
    assert "[libtorch_cuda.so]" in needed.stdout


def test_default_list_covers_turing_to_blackwell(setup):
    chosen = setup(None).CUDA_ARCHITECTURES
    assert (chosen[0], chosen[-1]) == ("7.5", "12.0")


@pytest.mark.parametrize(
    "torch_cuda, environment",
    [(None, {}), ("12.6", {"FORCE_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "9.0"})],
    ids=["torch without CUDA", "unwanted"],
)
def test_not_built(setup, tmp_path, torch_cuda, environment):
    toolkit = write_nvcc(tmp_path, "12.8")
    assert setup(torch_cuda, gpu=True, CUDA_HOME=toolkit, **environment).find_cuda_toolkit() is None


def test_no_compiler(setup, tmp_path):
    assert setup("12.6", gpu=True, CUDA_HOME=tmp_path).find_cuda_toolkit() is None
    forced = setup("12.6", CUDA_HOME=tmp_path, FORCE_CUDA="1")
    with pytest.raises(forced.BuildError, match="needs nvcc, and there is no .*bin/nvcc"):
        forced.find_cuda_toolkit()


def test_compiler_on_the_path_that_is_a_script(setup, monkeypatch, tmp_path):
    toolkit = write_nvcc(tmp_path / "toolkit", "12.8")
    write_nvcc(tmp_path / "elsewhere", "12.8", top=toolkit / "bin" / "..")
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere" / "bin"), prepend=":")
    assert setup("12.6", gpu=True).find_cuda_toolkit() == toolkit


def test_other_major_version_of_cuda_is_an_error(root, setup, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    assert setup("12.1", gpu=True, CUDA_HOME=toolkit).find_cuda_toolkit()  # another minor one
    program = f"""
import os, runpy, sys, torch
os.environ.update(CUDA_HOME={str(toolkit)!r}, TORCH_CUDA_ARCH_LIST="9.0", FORCE_CUDA="")
torch.version.cuda = "13.0"
sys.argv = ["setup.py", "build_ext", "--build-lib", {str(tmp_path)!r}]
runpy.run_path("setup.py", run_name="__main__")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True
    )
    assert result.returncode == 1
    message = f"nvcc ({toolkit}/bin/nvcc) is of CUDA 12.8, but torch {torch.__version__} is "
    assert f"error: {message}built for CUDA 13.0" in result.stderr
    assert "Traceback" not in result.stderr
