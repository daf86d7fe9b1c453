"""Compare every operator with its plain PyTorch reference, forward and backward, in all dtypes.

Prints a table and, with --json, writes what a bug report needs. The exit status is 1 if a result is
wrong. Times are of the forward pass in float32, beside a copy of as many bytes.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mmdcn import _extension, ops
from mmdcn.collect_env import collect_env
from mmdcn.ops import reference
from mmdcn.selftest.examples import NAMES, arguments

# Largest error of a dtype, relative to the largest value: rounding of the result and of the sums.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}
TIMED = 4  # scale of the calls that are timed
REPEATS = 5


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmdcn.selftest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--json", metavar="FILE", help="write results and environment")
    return parser.parse_args()


def cast(given: dict, dtype: torch.dtype, device: str) -> dict:
    """Arguments in a dtype on a device; regions keep their precision, as operators let them."""
    return {
        name: value.to(device, torch.float32 if name == "rois" and dtype.itemsize < 4 else dtype)
        if isinstance(value, Tensor)
        else value
        for name, value in given.items()
    }


def results(function: Callable, given: dict) -> dict[str, Tensor]:
    """Output and gradients of a call, in float64 on the CPU.

    The upstream gradient is the same for every dtype, up to rounding.
    """
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in given.items()
        if isinstance(value, Tensor) and name != "rois"
    }
    output = function(**{**given, **leaves})
    upstream = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    gradients = torch.autograd.grad(output, list(leaves.values()), upstream.to(output))
    found = dict(zip(("output", *leaves), (output, *gradients), strict=True))
    return {name: value.detach().cpu().double() for name, value in found.items()}


def check(name: str, dtype: torch.dtype, device: str) -> tuple[float, str]:
    """Largest relative error of an operator, and in which of its results."""
    torch.manual_seed(0)
    given = cast(arguments(name, 1), dtype, device)
    actual = results(getattr(ops, name), given)
    # the same numbers, computed exactly
    expected = results(getattr(reference, name), cast(given, torch.float64, "cpu"))
    errors = {}
    for key, value in expected.items():
        error = (actual[key] - value).abs().max() / value.abs().max()
        errors[key] = error.item() if error.isfinite() else float("inf")
    worst = max(errors, key=errors.get)
    return errors[worst], worst


def repeats(name: str, device: str) -> bool:
    """Whether a second call gives the same bits in deterministic mode."""
    torch.manual_seed(0)
    given = cast(arguments(name, 1), torch.float32, device)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (results(getattr(ops, name), given) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    return all(torch.equal(first[key], second[key]) for key in first)


def seconds(function: Callable[[], object], device: str) -> float:
    """Shortest of a few times."""
    best = float("inf")
    for _ in range(REPEATS + 1):  # the first one warms up
        begin = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def measure(name: str, device: str) -> dict[str, float]:
    """Milliseconds of a forward pass and of a copy of as many bytes, and bytes per second."""
    torch.manual_seed(0)
    given = cast(arguments(name, TIMED), torch.float32, device)
    with torch.no_grad():
        function = getattr(ops, name)
        tensors = [v for v in given.values() if isinstance(v, Tensor)] + [function(**given)]
        count = sum(t.numel() for t in tensors) * 4
        call = seconds(lambda: function(**given), device)
        source = torch.empty(count // 8, device=device)  # is read and written
        copy = seconds(source.clone, device)
    return dict(ms=1e3 * call, copy_ms=1e3 * copy, gigabytes_per_second=count / call / 1e9)


def run(device: str) -> dict[str, dict]:
    """All results, by operator."""
    found = {}
    for name in NAMES:
        entry: dict = dict(errors={}, wrong=[])
        for dtype, tolerance in TOLERANCES.items():
            label = str(dtype).removeprefix("torch.")
            try:
                error, where = check(name, dtype, device)
            except Exception as problem:  # is what this program looks for
                entry["wrong"].append(f"{label}: {type(problem).__name__}: {problem}")
                continue
            entry["errors"][label] = error
            if error > tolerance:
                entry["wrong"].append(
                    f"{label}: {where} is off by {error:.1e} of its largest value"
                )
        if not entry["wrong"]:
            if not repeats(name, device):
                entry["wrong"].append("deterministic mode: a second call gives other bits")
            entry.update(measure(name, device))
        found[name] = entry
    return found


def table(found: dict[str, dict]) -> str:
    """The results in columns."""
    width = max(map(len, found))
    head = f"{'':{width}}        " + "".join(f"{str(d)[6:]:>10}" for d in TOLERANCES)
    lines = [head + f"{'ms':>9}{'copy ms':>9}{'GB/s':>7}"]
    for name, entry in found.items():
        line = f"{name:{width}}  {'WRONG' if entry['wrong'] else 'ok':6}"
        for dtype in TOLERANCES:
            error = entry["errors"].get(str(dtype)[6:])
            line += f"{'-' if error is None else f'{error:.0e}':>10}"
        if "ms" in entry:
            line += f"{entry['ms']:9.2f}{entry['copy_ms']:9.2f}{entry['gigabytes_per_second']:7.1f}"
        lines.append(line)
        lines += [f"  {problem}" for problem in entry["wrong"]]
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    kind = torch.device(args.device).type
    missing = _extension.why_missing(kind)
    print(f"mmdcn {collect_env()['mmdcn']}, torch {torch.__version__}, {args.device}")
    print(f"native operators: {'yes' if missing is None else f'NO, {missing}'}\n")
    found = run(args.device)
    print(table(found))
    if args.json:
        content = dict(environment=collect_env(), device=args.device, native=missing is None)
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(dict(content, operators=found), file, indent=2)
    wrong = [name for name, entry in found.items() if entry["wrong"]]
    print(f"\nWRONG: {', '.join(wrong)}" if wrong else "\nAll operators are right.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
