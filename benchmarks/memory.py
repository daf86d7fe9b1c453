"""Peak memory of the contestants of one case, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import torch

from .cases import CASES, Case, to_device
from .peers import contestants
from .timing import peak_memory, returning_memory


def extra_memory(case: Case, device: str) -> dict[str, dict[str, float]]:
    """Contestant -> pass -> MiB beyond the arguments, the output and the gradients."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(CASES.index(case)), device],
        env=returning_memory(),
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"measuring the memory of {case.operator} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def _measure(case: Case, device: str) -> dict[str, dict[str, float]]:
    args = to_device(case.make(), device)
    leaves = {name: args[name].clone().requires_grad_() for name in case.differentiable}
    found = {}
    for contestant in contestants(case, args, torch.get_num_threads()):
        if contestant.name == "copy":
            continue
        kept = []

        def forward(contestant=contestant, kept=kept):
            with torch.no_grad():
                kept.append(contestant.forward(**args))

        def training(contestant=contestant, kept=kept):
            output = contestant.forward(**{**args, **leaves})
            inputs = list(leaves.values())
            grads = torch.autograd.grad(output, inputs, torch.ones_like(output), allow_unused=True)
            kept += [output, output, *(g for g in grads if g is not None)]  # its gradient, too

        passes = {"forward": forward, "forward+backward": training}
        found[contestant.name] = {}
        for name, function in passes.items():
            if name != "forward" and not contestant.trains:
                continue
            function()  # starts threads, loads code
            kept.clear()
            peak = peak_memory(function, device)
            results = sum(tensor.nbytes for tensor in kept)
            found[contestant.name][name] = max(peak - results, 0) / 2**20
    return found


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(_measure(CASES[int(sys.argv[1])], sys.argv[2])))
