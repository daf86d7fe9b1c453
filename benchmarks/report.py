"""Tables of a run, and where it ran."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import mmdcn

PEERS = [
    "reference",
    "mmcv",
    "torchvision",
    "grid_sample",
    "OpenVINO",
    "ONNX Runtime",
    "conv2d",
    "copy",
]
_PACKAGES = ["onedl-mmcv", "mmcv", "torchvision", "openvino", "onnxruntime"]


def environment(device: str = "cpu") -> dict[str, str]:
    """Date, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    cpu = platform.processor() or platform.machine()
    flags = ""
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        cpu = lines.get("model name", cpu)
        flags = "AVX-512" if "avx512f" in lines.get("flags", "") else ""
        flags = flags or ("AVX2" if "avx2" in lines.get("flags", "") else "")
    versions = {"mmdcn": mmdcn.__version__, "torch": torch.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if device == "cuda":
        versions["CUDA"] = torch.version.cuda
        versions["GPU"] = torch.cuda.get_device_name()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu}, {torch.get_num_threads()} cores" + (f", {flags}" if flags else ""),
        "commit": _commit(),
        **versions,
    }


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(git, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(header: list[str], rows: list[list[str]]) -> str:
    align = [":--" if i == 0 else "--:" for i in range(len(header))]
    return "\n".join(_row(cells) for cells in [header, align, *rows])


def _times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 9.95 else f"{ratio:.0f}×"


def speed_table(rows: list[dict]) -> str:
    """Milliseconds of mmdcn, and each peer's time as a multiple of it."""
    peers = [p for p in PEERS if any(p in row["seconds"] for row in rows)]
    lines, title = [], None
    for row in rows:
        heading = f"{row['operator']} {row['case']}"
        ours = row["seconds"]["mmdcn"]
        cells = [
            heading if heading != title else "",
            row["pass"],
            row["dtype"],
            str(row["threads"] or "GPU"),
        ]
        title = heading
        cells.append(f"{ours * 1e3:.3g}")
        times = row["seconds"]
        cells += [_times(times[peer] / ours) if peer in times else "" for peer in peers]
        lines.append(cells)
    return _table(["work", "pass", "dtype", "threads", "mmdcn, ms", *peers], lines)


def memory_table(memory: list[dict]) -> str:
    """Peak MiB beyond arguments and results."""
    peers = [p for p in ["mmdcn", *PEERS] if any(p in row["mib"] for row in memory)]
    lines = []
    for row in memory:
        for name in ("forward", "forward+backward"):
            cells = [f"{row['operator']} {row['case']}", name]
            for peer in peers:
                value = row["mib"].get(peer, {}).get(name)
                cells.append("" if value is None else f"{value:.1f}")
            lines.append(cells)
    return _table(["work", "pass", *peers], lines)


def scaling_table(scaling: list[dict]) -> str:
    """How much faster 2 threads are than 1, and bfloat16 than float32 with 2 threads."""
    lines = [
        [
            f"{row['operator']} {row['case']}",
            row["pass"],
            f"{row['seconds']['1 thread'] / row['seconds']['2 threads']:.2f}×",
            f"{row['seconds']['2 threads'] / row['seconds']['bfloat16']:.2f}×",
        ]
        for row in scaling
    ]
    return _table(["work", "pass", "2 threads against 1", "bfloat16 against float32"], lines)


def target_table(targets: list[dict]) -> str:
    """What was expected, what came, and whether it was reached."""
    lines = [
        [t["work"], t["pass"], t["against"], _times(t["target"]), _times(t["reached"]),
         "yes" if t["reached"] >= t["target"] else "no"]
        for t in targets
    ]  # fmt: skip
    return _table(["work", "pass", "against", "target", "reached", "met"], lines)
