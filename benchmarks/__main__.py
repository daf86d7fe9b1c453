"""Check each operator, then time it against its peers; print and save the tables."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from mmdcn import _extension

from . import report
from .cases import CASES, FB, Arguments, Case, F, to_device, to_dtype
from .memory import extra_memory
from .peers import Contestant, contestants
from .timing import interleave, keep_freed_memory


class Mismatch(RuntimeError):
    """A contestant does not compute what the reference does."""


def results(contestant: Contestant, case: Case, args: Arguments, training: bool) -> dict:
    """Output, and with ``training`` the gradients for an upstream gradient of ones."""
    if not training:
        with torch.no_grad():
            return {"output": contestant.forward(**args)}
    leaves = {name: args[name].detach().requires_grad_() for name in case.differentiable}
    output = contestant.forward(**{**args, **leaves})
    grads = torch.autograd.grad(output, list(leaves.values()), torch.ones_like(output))
    return {"output": output.detach(), **dict(zip(leaves, grads, strict=True))}


def check(found: list[Contestant], case: Case, args: Arguments) -> None:
    """Raise :class:`Mismatch` unless all give the numbers of the reference."""
    tolerance = 1e-3 if args["input"].dtype == torch.float32 else 2e-2
    expected = {c.name: c for c in found}["reference"]
    for training in (False, True):
        right = results(expected, case, args, training)
        for contestant in found:
            if not contestant.same or training and not contestant.trains:
                continue
            for name, value in results(contestant, case, args, training).items():
                scale = right[name].double().norm().item()
                error = (value.double() - right[name].double()).norm().item()
                if not error <= tolerance * scale:
                    raise Mismatch(
                        f"{case.operator} {case.name}: {name} of {contestant.name} differs from "
                        f"the reference by {error / scale:.2g} of its norm"
                    )


def functions(found: list[Contestant], case: Case, args: Arguments, name: str) -> dict:
    """Contestant -> what is timed for this pass."""
    leaves = {k: args[k].detach().requires_grad_() for k in case.differentiable}
    grad = None

    def forward(contestant):
        def run():
            with torch.no_grad():
                contestant.forward(**args)

        return run

    def training(contestant):
        def run():
            output = contestant.forward(**{**args, **leaves})
            torch.autograd.grad(output, list(leaves.values()), grad, allow_unused=True)

        return run

    if name == F:
        return {c.name: forward(c) for c in found}
    with torch.no_grad():
        grad = torch.randn_like(case.function(**args))
    return {c.name: training(c) for c in found if c.trains}


def measure(
    case: Case, dtype: torch.dtype, threads: int, seconds: float, device: str = "cpu"
) -> list[dict]:
    """One row for each pass."""
    torch.set_num_threads(threads)
    args = to_device(to_dtype(case.make(), dtype), device)
    found = contestants(case, args, threads)
    check(found, case, args)
    if dtype != torch.float32:
        found = [c for c in found if c.name in ("mmdcn", "conv2d", "copy")]
    return [
        {
            "operator": case.operator,
            "case": case.name,
            "pass": name,
            "dtype": str(dtype).removeprefix("torch."),
            "threads": threads if device == "cpu" else 0,
            "seconds": interleave(functions(found, case, args, name), seconds, device),
        }
        for name in (F, FB)
    ]


SCALING = {
    "1 thread": (torch.float32, 1),
    "2 threads": (torch.float32, 2),
    "bfloat16": (torch.bfloat16, 2),
}


def measure_scaling(case: Case, seconds: float) -> list[dict]:
    """mmdcn with 1 and 2 threads and in bfloat16, in turn: one row for each pass.

    The warm-up is long enough for the data to arrive in the caches of the cores that share it.
    """

    def variant(name: str, dtype: torch.dtype, threads: int):
        args = to_dtype(case.make(), dtype)
        ours = [c for c in contestants(case, args, threads) if c.name == "mmdcn"]
        function = functions(ours, case, args, name)["mmdcn"]

        def run():
            torch.set_num_threads(threads)
            function()

        return run

    return [
        {
            "operator": case.operator,
            "case": case.name,
            "pass": name,
            "seconds": interleave(
                {k: variant(name, *v) for k, v in SCALING.items()}, seconds, warm_up=0.03
            ),
        }
        for name in (F, FB)
    ]


def reached_targets(rows: list[dict]) -> list[dict]:
    """Targets of the cases beside what was measured in float32 with 2 threads."""
    targets = {(c.operator, c.name): c.targets for c in CASES}
    found = []
    for row in rows:
        if (row["dtype"], row["threads"]) != ("float32", 2):
            continue
        for (name, peer), target in targets[row["operator"], row["case"]].items():
            if name == row["pass"] and peer in row["seconds"]:
                reached = row["seconds"][peer] / row["seconds"]["mmdcn"]
                found.append({"work": f"{row['operator']} {row['case']}", "pass": name,
                              "against": peer, "target": target, "reached": reached})  # fmt: skip
    return found


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--operators", nargs="+", help="names in mmdcn.ops; all by default")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="on a GPU, timed with CUDA events"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="time for each contestant of each row"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="time without the pages that the system makes anew for large results",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmarks"), help="folder of the results"
    )
    args = parser.parse_args()
    known = {case.operator for case in CASES}
    if unknown := set(args.operators or ()) - known:
        parser.error(f"--operators: expected some of {sorted(known)}, got {sorted(unknown)}")
    if args.device == "cuda":
        if not _extension.is_available("cuda"):
            parser.error(f"--device: {_extension.why_missing('cuda')}")
        if not torch.cuda.is_available():
            parser.error("--device: there is no GPU")
        args.threads = [1]
    return args


def main() -> None:
    options = parse_args()
    if options.keep_freed_memory:
        keep_freed_memory()
    cores = torch.get_num_threads()
    environment = report.environment(options.device)
    low = torch.bfloat16 if options.device == "cpu" else torch.float16
    cases = [c for c in CASES if not options.operators or c.operator in options.operators]
    rows, scaling, memory = [], [], []
    for case in cases:
        for threads in options.threads:
            if threads > cores:
                print(f"skipping {threads} threads: this machine has {cores} cores")
                continue
            for dtype in (torch.float32, low) if case.largest else (torch.float32,):
                new = measure(case, dtype, threads, options.seconds, options.device)
                rows += new
                for row in new:
                    times = {k: f"{v * 1e3:.3g}" for k, v in row["seconds"].items()}
                    print(case.operator, case.name, row["pass"], row["dtype"], threads, "threads:",
                          times, "ms", flush=True)  # fmt: skip
        if case.largest and options.device == "cpu" and 2 in options.threads and cores >= 2:
            scaling += measure_scaling(case, options.seconds)
        if not options.no_memory:
            mib = extra_memory(case, options.device)
            memory.append({"operator": case.operator, "case": case.name, "mib": mib})
    save(options.out, environment, rows, scaling, memory)


def save(
    folder: Path, environment: dict, rows: list[dict], scaling: list[dict], memory: list[dict]
) -> None:
    """Write ``results.json`` and ``results.md``, and print the latter."""
    targets = reached_targets(rows)
    parts = [
        ", ".join(f"{key} {value}" for key, value in environment.items()) + ".",
        "Time of each peer divided by the time of mmdcn in the same run; above 1 mmdcn is faster.",
        report.speed_table(rows),
    ]
    if scaling:
        parts.append(report.scaling_table(scaling))
    if memory:
        parts += ["Peak memory in MiB beyond arguments and results, float32; CPUs with 2 threads.",
                  report.memory_table(memory)]  # fmt: skip
    if targets:
        parts.append(report.target_table(targets))
    text = "\n\n".join(parts) + "\n"
    data = {
        "environment": environment,
        "rows": rows,
        "scaling": scaling,
        "memory": memory,
        "targets": targets,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("results.md", text), ("results.json", json.dumps(data, indent=1))):
        temporary = folder / f".{name}"
        temporary.write_text(content)
        os.replace(temporary, folder / name)
    print(f"\n{text}\nSaved to {folder}/results.md and results.json")


if __name__ == "__main__":
    main()
