"""Fixtures that several folders of tests use."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "suites(*classes): operators that a test is for")
    # A shell that starts the tests in the background makes them ignore it, and all that they start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items) -> None:
    # Their files take longest. Begun last, one of them would keep one process busy at the end.
    items.sort(key=lambda item: "test_tools" not in item.path.parts)


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def load_tool(root):
    """Imports a script by its path below ``tools``, without ``.py``."""

    def load(name):
        path = root / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A small set of deformed shapes: 24 training and 9 validation images of 96 x 96 pixels."""
    folder = tmp_path_factory.mktemp("data") / "deformed_shapes"
    script = ROOT / "tools" / "dataset_converters" / "deformed_shapes.py"
    sizes = ["--train", "24", "--val", "9", "--size", "96"]
    command = [sys.executable, str(script), "--out", str(folder), *sizes]
    subprocess.run(command, check=True, capture_output=True)
    return folder
