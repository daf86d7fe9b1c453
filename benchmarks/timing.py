"""Interleaved timing, and peaks of memory, on CPUs and GPUs."""

from __future__ import annotations

import functools
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

_SHORT = 0.05  # seconds
_FLUSHED = 256 << 20  # bytes, more than any GPU's cache
# glibc keeps what is freed. It reads this when a process starts.
_KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def keep_freed_memory() -> None:
    """Start this program anew in a process that keeps what it frees.

    By default, the memory of large tensors goes back to the system when they are freed, and the
    next call waits for new pages. That is what a user's program does, but in an implementation
    with large intermediate results it can take longer than the computation.
    """
    if not _KEEPING.items() <= os.environ.items():
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **_KEEPING})


def returning_memory() -> dict[str, str]:
    """The environment of a process in which freed memory goes back to the system at once."""
    kept = {name: value for name, value in os.environ.items() if name not in _KEEPING}
    # Every larger allocation is a mapping of its own.
    return {**kept, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _warm_up(function: Callable, seconds: float) -> None:
    end = time.perf_counter() + seconds
    function()
    while time.perf_counter() < end:
        function()


@functools.cache
def _cache_flush() -> torch.Tensor:
    return torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")


def _cuda_seconds(function: Callable) -> float:
    """Between two events on the GPU, with its cache cold.

    The GPU is busy with flushing the cache while the host launches what is measured, so the time
    for launching a few kernels does not count.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    _cache_flush().zero_()
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def interleave(
    functions: dict[str, Callable],
    seconds: float,
    device: str = "cpu",
    minimum: int = 5,
    maximum: int = 51,
    warm_up: float = 0.005,
) -> dict[str, float]:
    """Median seconds of each function on a device.

    All run in turn, over and over, so that a change of the machine's speed meets all of them.
    Each is given about ``seconds``, but at least ``minimum`` runs. A function runs unmeasured
    for ``warm_up`` seconds before each measurement unless it is slow: what ran before it has left
    other data in the caches, and its threads may still spin.
    """
    clock = _seconds if device == "cpu" else _cuda_seconds
    estimates = {}
    for name, function in functions.items():
        function()
        estimates[name] = clock(function)
    rounds = {n: min(max(int(seconds / t), minimum), maximum) for n, t in estimates.items()}
    most = max(rounds.values())
    samples: dict[str, list[float]] = {name: [] for name in functions}
    gc.disable()
    try:
        for i in range(most):
            for name, function in functions.items():
                # The runs of a slow function are spread over all rounds.
                if i * rounds[name] // most == (i + 1) * rounds[name] // most:
                    continue
                if estimates[name] < _SHORT:
                    _warm_up(function, warm_up)
                samples[name].append(clock(function))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in samples.items()}


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peak_memory(function: Callable, device: str = "cpu") -> int:
    """Bytes by which the memory of this process on a device rose at most while ``function`` ran.

    On the CPU this is the resident memory, on Linux only. Freed memory must go back to the system
    at once for this to mean something, see :func:`returning_memory`.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0)
