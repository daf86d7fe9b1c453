"""Tests that need MMPretrain, which needs torchvision; `make test-classification` has both."""

import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, root):
    """A folder with 42 and 14 images of single shapes in ``data/singles``."""
    folder = tmp_path_factory.mktemp("classification")
    script = root / "tools" / "dataset_converters" / "deformed_shapes.py"
    options = ["--set", "singles", "--train", "42", "--val", "14"]
    out = folder / "data" / "singles"
    out.parent.mkdir()
    subprocess.run([sys.executable, script, "--out", out, *options], check=True)
    return folder
