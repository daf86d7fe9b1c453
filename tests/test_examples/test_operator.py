"""The example of an operator, laid over a copy of the project, is a whole operator there."""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
FOLDERS = ("mmdcn", "tests", "benchmarks", "docs")
FILES = ("setup.py", "pyproject.toml", "README.md")


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A copy of the project with the example's files, its line, and its library."""
    copy = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "_build", "_generated")
    for folder in FOLDERS:
        shutil.copytree(root / folder, copy / folder, ignore=ignore)
    for file in FILES:
        shutil.copy(root / file, copy)
    example = root / "examples" / "operator"
    before = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    files = [p.relative_to(example) for p in example.rglob("*") if p.is_file()]
    assert not before & set(files) - {(example / "README.md").relative_to(example)}
    for folder in FOLDERS:
        if (example / folder).exists():
            shutil.copytree(example / folder, copy / folder, dirs_exist_ok=True, ignore=ignore)
    (lines,) = re.findall(
        r"^```python\n(.*?)^```", (example / "README.md").read_text(), re.M | re.S
    )
    assert lines.count("\n") <= 2
    exports = copy / "mmdcn" / "ops" / "__init__.py"
    text = exports.read_text()
    exports.write_text(text.replace("\n__all__", f"\n{lines}\n__all__"))
    environment = {**os.environ, "PYTHONPATH": str(copy), "MMDCN_BUILD_EXT": "1", "FORCE_CUDA": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return copy, environment


def run(project, *command):
    copy, environment = project
    result = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    return result.stdout


def test_it_passes_the_tests_of_operators(project):
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "flow_warp"]
    output = run(
        project, "-m", "pytest", *options, "tests/test_ops", "tests/test_docs/test_pages.py"
    )
    passed = int(re.search(r"(\d+) passed", output)[1])
    assert passed > 100 and "skipped" not in output
