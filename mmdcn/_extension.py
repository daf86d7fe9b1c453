"""Loads the native operator libraries. Nothing else in mmdcn does."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path

import torch

_MIN_TORCH = (2, 10)
# Wheels have a library for each major version of CUDA.
_CUDA = (torch.version.cuda or "").split(".")[0]
_LIBRARIES = {"cpu": "_C.so", "cuda": f"_C_cuda{_CUDA}.so"}
# Another build than the installed one, for example with sanitizers.
_FOLDER = Path(os.environ.get("MMDCN_LIBRARY_DIR") or Path(__file__).parent)


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _load(device_type: str) -> str | None:
    """Load the library of a device type; return why it is not available, None when it is."""
    if device_type not in _LIBRARIES:
        return f"mmdcn has no native kernels for device type '{device_type}'"
    path = _FOLDER / _LIBRARIES[device_type]
    if device_type == "cuda" and not torch.version.cuda:
        return f"it needs a CUDA build of torch, found {torch.__version__}"
    if not path.exists():
        others = ", ".join(sorted(p.name for p in _FOLDER.glob("_C_cuda*.so")))
        there = f", only {others}" if device_type == "cuda" and others else ""
        return f"{path} does not exist{there}"
    if _torch_version() < _MIN_TORCH:
        return f"it needs torch >= 2.10, found {torch.__version__}"
    if device_type == "cuda" and _missing["cpu"]:
        return f"it needs the library for the CPU: {_missing['cpu']}"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        # What the linker says is the cause of torch's own message, where torch has one.
        return f"{path} could not be loaded: {error.__cause__ or error}"
    return None


def is_available(device_type: str = "cpu") -> bool:
    """Whether native kernels for ``device_type`` are loaded."""
    return _missing.get(device_type, "") is None


def why_missing(device_type: str) -> str | None:
    """Why there are no native kernels for ``device_type``; None when there are."""
    return _missing.get(device_type) if device_type in _missing else _load(device_type)


def library_path(device_type: str) -> Path:
    """Where the library of a device type stands, or should."""
    return _FOLDER / _LIBRARIES[device_type]


def schemas_available() -> bool:
    """Whether the operators are defined under ``torch.ops.mmdcn``."""
    return is_available("cpu")


def use_native(device_type: str) -> bool:
    """Whether to call the native operator; warns once when the slow reference stands in for it."""
    missing = _missing.get(device_type, "")
    if missing is None or device_type == "meta" and schemas_available():
        return True
    _warn(device_type)
    return False


@functools.cache
def _warn(device_type: str) -> None:
    missing = why_missing(device_type)
    if "torch >=" in missing:
        advice = 'To have the native ones: pip install --upgrade "torch>=2.10"'
    elif device_type in _LIBRARIES:
        forced = " FORCE_CUDA=1" if device_type == "cuda" else ""
        advice = (
            "To build the native ones, with a C++ compiler, in a clone of mmdcn's repository and "
            f"the environment that has torch: MMDCN_BUILD_EXT=1{forced} pip install "
            "--no-build-isolation --force-reinstall --no-deps ."
        )
    else:
        advice = "There are native ones for the CPU and for CUDA"
    warnings.warn(
        f"mmdcn runs its slow PyTorch reference operators on '{device_type}': {missing}. {advice}",
        RuntimeWarning,
        stacklevel=5,  # the line that called the operator
    )


_missing: dict[str, str | None] = {}
for _device_type in _LIBRARIES:
    _missing[_device_type] = _load(_device_type)
if _missing["cpu"]:
    _warn("cpu")  # pip does not show what the build had to say
