"""A built wheel and an editable install: contents, and what mim finds in them."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mim")
CONFIG = "faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py"


def run(*command, cwd, fails=False, **env) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **env},  # what is installed, nothing before it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="session")
def source(root, tmp_path_factory) -> Path:
    """The unpacked source distribution, which must hold all that a build needs."""
    folder = tmp_path_factory.mktemp("sdist")
    egg_info = ["egg_info", "--egg-base", folder]
    run(sys.executable, "setup.py", *egg_info, "sdist", "--dist-dir", folder, cwd=root)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return source


def build_wheel(source: Path, out: Path, *options, **env) -> Path:
    """Build in a copy, since a build leaves its folders behind."""
    copy = shutil.copytree(source, out / "source")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", out]
    run(*command, *(options or ["--no-build-isolation"]), cwd=copy, **env)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def pure_wheel(source, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("pure"), MMDCN_BUILD_EXT="0")


@pytest.fixture(scope="session")
def native_wheel(source, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("native"), MMDCN_BUILD_EXT="1")


def make_environment(folder: Path, *install, **env) -> Path:
    """A virtual environment with mmdcn and, below it, the packages of this one; its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    below = site / "below.pth"
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # pip must see the build tools, and not an mmdcn that it would uninstall.
    below.write_text("\n".join(sorted(packages)))
    pip = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    run(python, *pip, "--quiet", *install, cwd=folder, **env)
    return python


@pytest.fixture(scope="session", params=["wheel", "editable"])
def python(request, source, tmp_path_factory) -> Path:
    """Python of an environment with mmdcn installed in either way."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheel":
        return make_environment(folder / "venv", request.getfixturevalue("pure_wheel"))
    clone = shutil.copytree(source, folder / "clone")
    return make_environment(folder / "venv", "--editable", clone, MMDCN_BUILD_EXT="0")


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_has_the_package_and_nothing_else(pure_wheel, root):
    modules = {p.relative_to(root).as_posix() for p in (root / "mmdcn").rglob("*.py")}
    tops = {name.split("/")[0] for name in names(pure_wheel)}
    assert {n for n in names(pure_wheel) if n.endswith(".py") and ".mim" not in n} == modules
    assert tops == {"mmdcn", pure_wheel.name.split("-py3")[0] + ".dist-info"}
    assert not [n for n in names(pure_wheel) if n.endswith((".cpp", ".h", ".so", ".pyc"))]
    assert pure_wheel.name.endswith("-py3-none-any.whl")


def test_wheel_has_what_mim_looks_up(pure_wheel, root):
    kept = [p for folder in ("configs", "tools") for p in (root / folder).rglob("*")]
    kept = {p.relative_to(root).as_posix() for p in kept if p.is_file() and p.suffix != ".pyc"}
    assert {"tools/train.py", "tools/test.py", "configs/dcn/" + CONFIG} <= kept
    kept.add("model-index.yml")
    info = pure_wheel.name.split("-py3")[0] + ".dist-info"
    for place in ("mmdcn", info):
        prefix = f"{place}/.mim/"
        found = {n.removeprefix(prefix) for n in names(pure_wheel) if n.startswith(prefix)}
        assert found == kept


def test_hub_gets_configs_from_a_wheel(pure_wheel, tmp_path):
    pytest.importorskip("mmdet")
    name = f"mmdcn::dcn/{CONFIG}"
    code = f"""
        import mmdcn.models
        from mmengine.hub import get_config

        config = get_config({name!r}, pretrained=True)
        print(config.filename, config.model.backbone.dcn.type, config.model_path)
    """
    python = make_environment(tmp_path / "venv", pure_wheel)
    out = run(python, "-W", "ignore", "-c", textwrap.dedent(code), cwd=tmp_path).splitlines()[-1]
    file, layer, weights = out.split()
    assert Path(file).parts[-3:] == ("configs", "dcn", CONFIG)
    assert layer == "mmdcn.DCNv2" and weights.endswith(".pth")


@pytest.mark.slow
def test_native_wheel_fits_every_python_and_runs(native_wheel, tmp_path):
    assert "mmdcn/_C.so" in names(native_wheel)
    tag = native_wheel.name.removesuffix(".whl").split("-")[2:]
    assert tag[:2] == ["py3", "none"] and tag[2] != "any"

    with zipfile.ZipFile(native_wheel) as archive:
        library = archive.extract("mmdcn/_C.so", tmp_path)
    symbols = run("nm", "-D", "--undefined-only", library, cwd=tmp_path)
    assert " Py" not in symbols and " _Py" not in symbols
    # That of manylinux_2_28, whatever this machine has.
    needed = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", symbols)}
    assert needed and max(needed) <= (2, 28)
    needed = {int(v) for v in re.findall(r"@GLIBCXX_3\.4\.(\d+)", symbols)}
    assert platform.machine() != "x86_64" or max(needed) <= 24
    assert "libtorch_python" not in run("readelf", "-d", library, cwd=tmp_path)

    python = make_environment(tmp_path / "venv", native_wheel)
    program = """
import torch, mmdcn, mmdcn._extension
from mmdcn.ops import deform_conv2d
print(mmdcn.__file__)
assert mmdcn._extension.is_available("cpu")
x, w = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
y = deform_conv2d(x, torch.zeros(1, 18, 3, 3), w)
torch.testing.assert_close(y, torch.nn.functional.conv2d(x, w))
"""
    assert str(tmp_path / "venv") in run(python, "-W", "error", "-c", program, cwd=tmp_path)


def test_no_compiler_gives_a_pure_wheel_and_says_so(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "source")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", tmp_path, "--verbose"]
    nowhere = dict(CC="/nowhere/cc", CXX="/nowhere/c++", MMDCN_BUILD_EXT="1")
    assert "nowhere/c++" in run(*command, cwd=copy, fails=True, **nowhere)
    del nowhere["MMDCN_BUILD_EXT"]
    log = run(*command, cwd=copy, **nowhere)
    assert "WARNING: mmdcn is being installed WITHOUT its native operator library" in log
    (wheel,) = tmp_path.glob("*.whl")
    assert "mmdcn/ops/__init__.py" in names(wheel) and "mmdcn/_C.so" not in names(wheel)
    assert wheel.name.endswith("-py3-none-any.whl")  # not to be taken for one with a library
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: true\nTag: py3-none-any" in archive.read(file).decode()


def test_build_without_torch_says_what_to_do(source, tmp_path):
    # What pip's isolated build environment is like.
    copy = shutil.copytree(source, tmp_path / "source")
    (copy / "torch.py").write_text("raise ImportError('no torch here')")
    command = ["setup.py", "build_ext", "--inplace"]
    log = run(sys.executable, *command, cwd=copy, fails=True, PYTHONPATH=str(copy))
    assert "error: the build needs torch" in log and "--no-build-isolation" in log
    run(sys.executable, *command, cwd=copy, PYTHONPATH=str(copy), MMDCN_BUILD_EXT="0")


def test_mim_search(python, root, tmp_path):
    out = tmp_path / "models.json"
    run(python, "-m", "mim", "search", "mmdcn", "--json", out, cwd=tmp_path)
    found = json.loads(out.read_text())
    index = yaml.safe_load((root / "model-index.yml").read_text())
    models = [
        model["Name"]
        for file in index["Import"]
        for model in yaml.safe_load((root / file).read_text()).get("Models", [])
    ]
    assert set(models) <= set(found["config"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "toolbox", "folder"),
    [
        (f"configs/dcn/{CONFIG}", "mmdet", "data/coco/"),
        (
            "configs/internimage/upernet_internimage-t_160k_ade20k-512x512.py",
            "mmseg",
            "data/ade/ADEChallengeData2016",
        ),
    ],
)
def test_mim_train_finds_tool_and_config_by_name(python, tmp_path, config, toolbox, folder):
    # There is no data here, and the tool says so: everything before that works. Of a path that does
    # not exist mim takes the name, so that README's commands work outside of a clone, too.
    pytest.importorskip(toolbox)
    log = run(python, "-m", "mim", "train", "mmdcn", config, cwd=tmp_path, fails=True)
    assert "we find the config file in codebase mmdcn, will use" in log
    assert f"train_dataloader.dataset.data_root: there is no folder {folder!r}" in log


@pytest.mark.slow
def test_mim_test_finds_tool_and_config_by_name(python, tmp_path):
    command = ["-m", "mim", "test", "mmdcn", CONFIG, "--checkpoint", "nowhere.pth"]
    log = run(python, *command, cwd=tmp_path, fails=True)
    assert "test_evaluator.ann_file: there is no file 'data/coco/" in log


@pytest.mark.slow
def test_mim_download_writes_the_config(python, root, tmp_path):
    metafile = yaml.safe_load((root / "configs" / "dcn" / "metafile.yml").read_text())
    model = next(model for model in metafile["Models"] if model.get("Weights"))
    # mim fetches the checkpoint only if it is not there yet.
    (tmp_path / model["Weights"].split("/")[-1]).write_bytes(b"")
    name = Path(model["Config"]).stem
    run(python, "-m", "mim", "download", "mmdcn", "--config", name, "--dest", ".", cwd=tmp_path)
    assert "mmdcn.DCN" in (tmp_path / f"{name}.py").read_text()
