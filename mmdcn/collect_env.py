"""Prints what a bug report needs: ``python -m mmdcn.collect_env``."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import torch

from . import __version__, _extension

# Import names, and the distributions that may provide them.
_PACKAGES = {
    "mmengine": ("mmengine", "onedl-mmengine"),
    "mmcv": ("mmcv", "mmcv-lite", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
    "mim": ("openmim", "onedl-mim"),
}


def collect_env() -> dict[str, str]:
    """Versions, GPUs, and which native libraries are built and active."""
    env = {
        "mmdcn": __version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "GPUs": ", ".join(_gpus()) or "none",
    }
    for device_type, title in (("cpu", "CPU"), ("cuda", "CUDA")):
        env[f"native operators, {title}"] = _library(device_type)
    for name, distributions in _PACKAGES.items():
        env[name] = _version(distributions)
    return env


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        found.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return found


def _library(device_type: str) -> str:
    if reason := _extension.why_missing(device_type):
        return f"not active: {reason}"
    details = f", {_architectures()}" if device_type == "cuda" else ""
    return f"active{details} ({_extension.library_path(device_type)})"


def _architectures() -> str:
    """nvcc's version and the GPUs that it compiled for, with ``sm_90`` in the place of its 900."""
    text = re.sub(r"\b(\d{2,3})0\b", r"sm_\1", torch.ops.mmdcn._cuda_build())
    return text.replace(",sm", ", sm")


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return f"{metadata.version(name)} ({name})"
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def main() -> None:
    env = collect_env()
    width = max(map(len, env))
    for name, value in env.items():
        print(f"{name:{width}} : {value}")


if __name__ == "__main__":
    main()
