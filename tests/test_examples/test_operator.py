"""The example of an operator, laid over a copy of the project, is a whole operator there."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from mmdcn import _extension

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _extension.is_available("cpu"), reason="the library was not built"),
]
FOLDERS = ("mmdcn", "tests", "benchmarks", "docs")
FILES = ("setup.py", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FLAGS = [
    "-shared", "-fPIC", "-O1", "-std=c++20", "-Wall", "-Wno-psabi", "-fvisibility=hidden",
    "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY",
]  # fmt: skip


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A copy of the project with the example's files, its line, and its library."""
    copy = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__", "_build", "_generated")
    for folder in FOLDERS:
        shutil.copytree(root / folder, copy / folder, ignore=ignore)
    for file in FILES:
        shutil.copy(root / file, copy)
    example = root / "examples" / "operator"
    for folder in FOLDERS:
        if (example / folder).exists():
            shutil.copytree(example / folder, copy / folder, dirs_exist_ok=True, ignore=ignore)
    readme = (example / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert lines.count("\n") <= 2
    change(copy / "mmdcn" / "ops" / "__init__.py", "\n__all__", f"\n{lines}\n__all__")

    # The library of the copy would be compiled whole; the example's own part is enough here.
    sources = sorted(map(str, (copy / "mmdcn" / "csrc" / "flow_warp").glob("*.cpp")))
    library = copy / "mmdcn" / "flow_warp.so"
    includes = [f"-I{path}" for path in (copy / "mmdcn" / "csrc", *include_paths())]
    command = [os.environ.get("CXX", "c++"), *FLAGS, *includes, *sources, "-o", str(library)]
    command += [f"-L{torch.__path__[0]}/lib", "-ltorch_cpu", "-ltorch", "-lc10"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and not result.stderr, result.stderr[-4000:]
    loading = f"torch.ops.load_library({str(library)!r})\n\n\ndef is_available"
    change(copy / "mmdcn" / "_extension.py", "def is_available", loading)
    return copy


def change(file, before, after):
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_it_passes_the_tests_of_operators(project):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    command += ["-k", "flow_warp", "tests/test_ops", "tests/test_docs/test_pages.py"]
    result = subprocess.run(
        command, cwd=project, env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    passed = int(re.search(r"(\d+) passed", result.stdout)[1])
    assert passed > 100 and "skipped" not in result.stdout
