import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import mmdcn
from mmdcn import _extension, collect_env


def test_command():
    command = [sys.executable, "-m", "mmdcn.collect_env"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    env = dict(map(str.strip, line.split(" : ", 1)) for line in text.splitlines())
    assert env["mmdcn"] == mmdcn.__version__ and torch.__version__ in env["torch"]
    state = "active" if _extension.is_available("cpu") else "not active: "
    assert env["native operators, CPU"].startswith(state)
    assert "native operators, CUDA" in env


@pytest.mark.parametrize(
    "missing, expected",
    [
        (None, "active, CUDA 13.0, architectures sm_75, sm_120 (*)"),
        ("it needs a GPU", "not active: it needs a GPU"),
    ],
)
def test_cuda_library(monkeypatch, tmp_path, missing, expected):
    path = tmp_path / "_C_cuda13.so"
    operators = SimpleNamespace(_cuda_build=lambda: "CUDA 13.0, architectures 750,1200")
    monkeypatch.setattr(torch.ops, "mmdcn", operators)
    monkeypatch.setattr(_extension, "library_path", lambda device_type: path)
    monkeypatch.setattr(_extension, "why_missing", lambda device_type: missing)
    found = collect_env.collect_env()["native operators, CUDA"]
    assert found == expected.replace("*", str(path))
