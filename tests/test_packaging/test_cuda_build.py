"""What setup.py decides about the CUDA library, with scripts that answer as nvcc does."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import cpp_extension

NVCC = """#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V{release}.105" ;;
--list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_90\\ncompute_121\\n' ;;
esac
"""
VARIABLES = ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST", "MMDCN_CUDA_HOMES")


def write_nvcc(folder: Path, release: str) -> Path:
    """A toolkit in ``folder``."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(NVCC.format(release=release))
    nvcc.chmod(0o755)
    return folder


@pytest.fixture
def setup(root, monkeypatch):
    """Functions of setup.py, for given environment variables and a torch with or without CUDA."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # put back afterwards, also where setup.py sets it
        monkeypatch.delenv(name)

    def load(torch_cuda: str | None, gpu: bool = False, **environment) -> SimpleNamespace:
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        found = cpp_extension._find_cuda_home() if torch_cuda else None
        monkeypatch.setattr(cpp_extension, "CUDA_HOME", found)
        return SimpleNamespace(**runpy.run_path(str(root / "setup.py"), run_name="setup"))

    return load


def chosen(module: SimpleNamespace) -> list[str]:
    """The toolkits that are used; torch knows the last one and the architectures."""
    toolkits = module.cuda_toolkits()
    module.use_toolkit.__globals__["make_cuda_stub"] = lambda: None
    for toolkit in toolkits:
        module.use_toolkit(toolkit)
        assert cpp_extension.CUDA_HOME == toolkit
    return toolkits


def test_visible_gpus_choose_the_architectures(setup, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup("12.6", gpu=True, CUDA_HOME=toolkit)
    assert chosen(module) == [str(toolkit)]
    assert "TORCH_CUDA_ARCH_LIST" not in os.environ  # PyTorch asks the GPUs


def test_without_a_gpu_it_is_left_out_and_says_so(setup, tmp_path, capsys):
    module = setup("12.6", CUDA_HOME=write_nvcc(tmp_path, "12.8"))
    assert not module.cuda_toolkits()
    assert "WITHOUT its CUDA operator library" in (text := capsys.readouterr().err)
    assert "FORCE_CUDA=1" in text and "TORCH_CUDA_ARCH_LIST" in text


def test_a_list_of_architectures_is_honoured_without_a_gpu(setup, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup("12.6", CUDA_HOME=toolkit, TORCH_CUDA_ARCH_LIST="8.6;9.0")
    assert chosen(module) == [str(toolkit)]
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.6;9.0"


@pytest.mark.parametrize("torch_cuda", [None, "12.6"])
def test_forced_without_a_gpu_for_all_that_nvcc_knows(setup, tmp_path, torch_cuda):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup(torch_cuda, CUDA_HOME=toolkit, FORCE_CUDA="1")
    assert chosen(module) == [str(toolkit)]
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "7.5;8.0;9.0+PTX"


def test_forced_with_a_list(setup, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    module = setup(None, CUDA_HOME=toolkit, FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    assert chosen(module) == [str(toolkit)]
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "9.0"


@pytest.mark.parametrize("default", ["--as-needed", "--no-as-needed"])
def test_library_depends_on_that_of_torch(setup, tmp_path, default):
    """Whatever the linker does with libraries of which no symbol is used."""
    toolkit = write_nvcc(tmp_path / "toolkit", "12.8")
    module = setup(None, CUDA_HOME=toolkit, FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    (extension,) = map(module.cuda_library, chosen(module))
    assert any(source.endswith("dcnv3_cuda.cu") for source in extension.sources)
    module.make_cuda_stub.__globals__["BUILD"] = tmp_path
    module.make_cuda_stub()
    library = tmp_path / "library.so"
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, f"-Wl,{default}", "-shared", "-x", "c++", "/dev/null", "-x", "none"]
    folders = [tmp_path, Path(torch.__file__).parent / "lib"]
    command += ["-o", library, *(f"-L{folder}" for folder in folders)]
    subprocess.run([*command, *extension.extra_link_args], check=True)
    needed = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True)
    assert "[libtorch_cuda.so]" in needed.stdout


def test_default_list_covers_volta_to_blackwell(setup):
    architectures = setup(None).CUDA_ARCHITECTURES
    assert (architectures[0], architectures[-1]) == ("7.0", "12.0")


@pytest.mark.parametrize(
    "torch_cuda, environment",
    [(None, {}), ("12.6", {"FORCE_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "9.0"})],
    ids=["torch without CUDA", "unwanted"],
)
def test_not_built(setup, tmp_path, torch_cuda, environment):
    toolkit = write_nvcc(tmp_path, "12.8")
    assert not setup(torch_cuda, gpu=True, CUDA_HOME=toolkit, **environment).cuda_toolkits()


def test_a_library_for_each_of_several_toolkits(setup, tmp_path):
    homes = [write_nvcc(tmp_path / release, release) for release in ("12.4", "13.0")]
    module = setup(None, MMDCN_CUDA_HOMES=":".join(map(str, homes)))
    libraries = module.native_libraries()
    assert [x.name for x in libraries] == ["mmdcn._C_cuda12", "mmdcn._C_cuda13", "mmdcn._C"]
    assert chosen(module) == list(map(str, homes))
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "7.5;8.0;9.0+PTX"


def test_several_toolkits_that_will_not_do(setup, tmp_path):
    module = setup(None, MMDCN_CUDA_HOMES=tmp_path)
    with pytest.raises(SystemExit, match="MMDCN_CUDA_HOMES: there is no .*bin/nvcc"):
        module.cuda_toolkits()
    module = setup("13.0", MMDCN_CUDA_HOMES=write_nvcc(tmp_path / "toolkit", "13.0"))
    with pytest.raises(SystemExit, match="needs a CPU build of torch"):
        module.cuda_toolkits()


def test_toolkit_that_does_not_run(setup, tmp_path):
    toolkit = write_nvcc(tmp_path, "12.8")
    (toolkit / "bin" / "nvcc").write_text("#!/bin/sh\nexit 3\n")
    module = setup("12.6", gpu=True, CUDA_HOME=toolkit)
    with pytest.raises(SystemExit, match=r"nvcc.*exit status 3\.\nSet CUDA_HOME .*FORCE_CUDA=0"):
        module.native_libraries()


def test_no_compiler(setup, tmp_path):
    assert not setup("12.6", gpu=True, CUDA_HOME=tmp_path).cuda_toolkits()
    forced = setup("12.6", CUDA_HOME=tmp_path, FORCE_CUDA="1")
    with pytest.raises(forced.BuildError, match="needs CUDA_HOME: there is no .*bin/nvcc"):
        forced.cuda_toolkits()


@pytest.mark.parametrize("torch_cuda, force", [("12.6", ""), (None, "1")])
def test_compiler_on_the_path(setup, monkeypatch, tmp_path, torch_cuda, force):
    toolkit = write_nvcc(tmp_path, "12.8")
    monkeypatch.setenv("PATH", str(toolkit / "bin"), prepend=":")
    assert chosen(setup(torch_cuda, gpu=True, FORCE_CUDA=force)) == [str(toolkit)]


def build_in_place(folder: Path, torch_cuda: str, **environment) -> subprocess.CompletedProcess:
    """``setup.py build_ext --inplace`` in ``folder`` as a torch for that CUDA would run it."""
    program = f"""
import runpy, sys, torch
torch.version.cuda = {torch_cuda!r}
sys.argv = ["setup.py", "build_ext", "--inplace"]
runpy.run_path("setup.py", run_name="__main__")
"""
    variables = dict.fromkeys(VARIABLES, "") | {k: str(v) for k, v in environment.items()}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def small_package(root, tmp_path) -> Path:
    """The build of mmdcn around sources that compile in a second."""
    folder = tmp_path / "package"
    (folder / "mmdcn" / "csrc").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "mmdcn/__init__.py"):
        shutil.copy2(root / name, folder / name)
    for name in ("some.cpp", "some.cu"):
        (folder / "mmdcn" / "csrc" / name).write_text("")
    return folder


def test_without_a_working_cuda_compiler_there_is_the_library_for_cpus(small_package, tmp_path):
    toolkit = write_nvcc(tmp_path / "toolkit", "12.8")  # it compiles nothing
    stale = small_package / "mmdcn" / "_C_cuda12.so"
    options = dict(CUDA_HOME=toolkit, TORCH_CUDA_ARCH_LIST="9.0")
    stale.touch()
    result = build_in_place(small_package, "12.6", **options)
    assert result.returncode == 0, result.stderr
    assert "WITHOUT its CUDA operator library" in result.stderr
    assert "WITHOUT its native" not in result.stderr
    assert [path.name for path in stale.parent.glob("*.so")] == ["_C.so"]
    result = build_in_place(small_package, "12.6", **options, MMDCN_BUILD_EXT="1")
    assert result.returncode == 1


def test_other_major_version_of_cuda_is_an_error(small_package, tmp_path):
    toolkit = write_nvcc(tmp_path / "toolkit", "12.8")
    options = dict(CUDA_HOME=toolkit, TORCH_CUDA_ARCH_LIST="9.0")
    result = build_in_place(small_package, "13.0", **options)
    assert result.returncode == 1
    assert re.search(r"error: .*CUDA version \(12.8\) mismatches .* \(13.0\)", result.stderr)
    assert f"Set CUDA_HOME, now {toolkit}," in result.stderr and "FORCE_CUDA=0" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((small_package / "mmdcn").glob("*.so"))


def test_error_of_the_compiler_is_shown_and_little_else(small_package):
    source = small_package / "mmdcn" / "csrc" / "some.cpp"
    source.write_text("int f() { return missing; }\n" * 50)
    for required in ("", "1"):
        result = build_in_place(small_package, None, MMDCN_BUILD_EXT=required)
        assert result.returncode == int(required or 0)
        text = result.stderr
        assert "some.cpp:1:18: error: 'missing' was not declared" in text.replace("‘", "'").replace(
            "’", "'"
        )
        assert len(text.splitlines()) < 25 and "Traceback" not in text
        log = re.search(r"all of the output: (\S+build\.log)", text)[1]
        assert (small_package / log).read_text().count("was not declared") >= 49
