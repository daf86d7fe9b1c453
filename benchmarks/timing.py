"""Interleaved timing, and the peak of resident memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

_SHORT = 0.05  # seconds


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleave(
    functions: dict[str, Callable], seconds: float, minimum: int = 5, maximum: int = 51
) -> dict[str, float]:
    """Median seconds of each function.

    All run in turn, over and over, so that a change of the machine's speed meets all of them.
    Each is given about ``seconds``, but at least ``minimum`` runs. A short function runs
    once unmeasured before each measurement: what ran before it has other data in the caches, and
    its threads may still spin.
    """
    estimates = {}
    for name, function in functions.items():
        function()
        estimates[name] = _seconds(function)
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
                    function()
                samples[name].append(_seconds(function))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in samples.items()}


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peak_memory(function: Callable) -> int:
    """Bytes by which the resident memory of this process rose at most while ``function`` ran.

    Linux only. Freed memory must go back to the system at once for this to mean something, see
    the environment variables in :mod:`benchmarks.memory`.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function()
    return max(_status("VmHWM") - before, 0)
