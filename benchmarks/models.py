"""Backbones on a CPU: check that all ways to run one agree, then time them.

    python -m benchmarks.models --compile

The ways are mmdcn in float32 and under autocast to bfloat16; the same model with other operators,
namely mmdcn's plain PyTorch (``reference``) and the formulation with ``F.grid_sample``; OpenVINO,
which is fed with that formulation; and mmdcn as one graph of ``torch.compile``, which takes minutes
to make. Prints a table and saves it with all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from mmdcn.models.backbones import FlashInternImage, InternImage
from mmdcn.ops import DCNv3, DCNv4, reference

from . import formulations, report
from .__main__ import Mismatch
from .timing import interleave

BACKBONES = {"InternImage-T": InternImage, "FlashInternImage-T": FlashInternImage}
# Time of another way divided by that of mmdcn in float32, with 2 threads.
TARGETS = {("InternImage-T", "grid_sample"): 2.5, ("InternImage-T", "OpenVINO"): 1.0}
TOLERANCE = 1e-3  # in float32, of the norm of each level's output


def build(name: str) -> nn.Module:
    """A model with random weights, whose offsets are about a pixel and whose taps have weights
    that add up to about one."""
    torch.manual_seed(0)
    model = BACKBONES[name](arch="tiny").eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, DCNv3):
                for predictor in (layer.offset, layer.mask):
                    predictor.weight.normal_(std=layer.channels**-0.5)
            elif isinstance(layer, DCNv4):
                predicted = layer.offset_mask.weight.normal_(std=layer.channels**-0.5)
                predicted[: 27 * layer.group].unflatten(0, (-1, 27))[:, 18:] /= 9
    return model


def _grid_sample_dcnv3(input, offset, mask, *, groups, offset_scale, mask_softmax, **_) -> Tensor:
    """``formulations.dcnv3`` with the arguments that the module hands on."""
    assert offset_scale == 1.0 and mask_softmax
    mask = mask.unflatten(-1, (groups, 9)).softmax(-1).flatten(-2)
    return formulations.dcnv3(input, offset, mask, groups)


def _grid_sample_dcnv4(input, offset_mask, *, groups, offset_scale, **_) -> Tensor:
    assert offset_scale == 1.0
    return formulations.dcnv4(input, offset_mask[..., : 27 * groups], groups)


OPERATORS = {
    "reference": (reference.dcnv3, reference.dcnv4),
    "grid_sample": (_grid_sample_dcnv3, _grid_sample_dcnv4),
}


@contextmanager
def operators(name: str):
    """Models that run in this context use these operators in place of mmdcn's."""
    dcnv3, dcnv4 = OPERATORS[name]
    with (
        mock.patch.multiple("mmdcn.ops.modules.dcnv3", dcnv3=dcnv3),
        mock.patch.multiple("mmdcn.ops.modules.dcnv4", dcnv4=dcnv4),
    ):
        yield


Run = Callable[[], list[Tensor]]


def openvino(model: nn.Module, image: Tensor, threads: int) -> Run:
    """The model with ``F.grid_sample``, converted by OpenVINO."""
    import openvino as ov

    with operators("grid_sample"), torch.no_grad():
        converted = ov.convert_model(model, example_input=image, input=[image.shape])
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = ov.Core().compile_model(converted, "CPU", options).create_infer_request()
    request.set_input_tensor(0, ov.Tensor(image.numpy(), shared_memory=True))

    def run() -> list[Tensor]:
        request.infer()
        return [torch.from_numpy(request.get_output_tensor(i).data) for i in range(4)]

    return run


def ways(model: nn.Module, image: Tensor, threads: int, compiled: bool) -> dict[str, Run]:
    """Name -> what runs the model on the image."""

    def plain(model: nn.Module = model) -> list[Tensor]:
        with torch.no_grad():
            return list(model(image))

    def with_operators(name: str) -> Run:
        def run() -> list[Tensor]:
            with operators(name):
                return plain()

        return run

    def bfloat16() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return plain()

    found = {"mmdcn": plain, **{name: with_operators(name) for name in OPERATORS}}
    try:
        found["OpenVINO"] = openvino(model, image, threads)
    except ImportError as error:
        print(f"OpenVINO is left out: {error}")
    if compiled:
        found["compiled"] = partial(plain, torch.compile(model, fullgraph=True))
    return {**found, "bfloat16": bfloat16}


def check(found: dict[str, Run]) -> dict[str, float]:
    """Largest relative error of any level's output; raises Mismatch if it is too large.

    In bfloat16 mmdcn may be off from the reference in float32 by twice as much as the reference in
    bfloat16 is.
    """
    expected = found["reference"]()

    def error(outputs: list[Tensor]) -> float:
        levels = zip(outputs, expected, strict=True)
        return max(((a.float() - b).norm() / b.norm()).item() for a, b in levels)

    with torch.autocast("cpu", torch.bfloat16):
        low = 2 * error(found["reference"]())
    errors = {name: error(run()) for name, run in found.items() if name != "reference"}
    for name, value in errors.items():
        if not value <= (low if name == "bfloat16" else TOLERANCE):
            raise Mismatch(f"{name} differs from the reference by {value:.2g} of its norm")
    return errors


def measure(name: str, size: tuple[int, int], threads: int, seconds: float, compiled: bool) -> dict:
    """Times in seconds and errors, one row of the table."""
    torch.set_num_threads(threads)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = ways(build(name), image, threads, compiled)
    errors = check(found)
    return {
        "model": name,
        "size": size,
        "threads": threads,
        "seconds": interleave(found, seconds, minimum=3),
        "errors": errors,
    }


def table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"] if name != "mmdcn"))
    lines = []
    for row in rows:
        times = row["seconds"]
        ours = times["mmdcn"]
        cells = [f"{times[n] * 1e3:.0f} ({times[n] / ours:.2f})" if n in times else ""
                 for n in names]  # fmt: skip
        height, width = row["size"]
        lines.append(
            [f"{row['model']} 1x3x{height}x{width}", str(row["threads"]), f"{ours * 1e3:.0f}"]
            + cells
        )
    return report._table(["backbone", "threads", "mmdcn", *names], lines)


def target_table(rows: list[dict]) -> str:
    reached = [
        {"work": row["model"], "pass": "forward", "against": other, "target": target,
         "reached": row["seconds"][other] / row["seconds"]["mmdcn"]}
        for row in rows if row["threads"] == 2
        for (model, other), target in TARGETS.items()
        if model == row["model"] and other in row["seconds"]
    ]  # fmt: skip
    return report.target_table(reached)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=list(BACKBONES), default=list(BACKBONES))
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(800, 1280)
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each way")
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmarks"), help="folder of the results"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_args()
    environment = report.environment()
    rows = [
        measure(name, tuple(options.size), threads, options.seconds, options.compile)
        for name in options.models
        for threads in options.threads
    ]
    text = "\n\n".join(
        [
            ", ".join(f"{key} {value}" for key, value in environment.items()) + ".",
            "Milliseconds for one image; in brackets the time divided by that of mmdcn.",
            table(rows),
            target_table(rows),
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"environment": environment, "rows": rows}, indent=1)
    for file, data in (("models.md", text + "\n"), ("models.json", content)):
        temporary = options.out / f".{file}"
        temporary.write_text(data)
        os.replace(temporary, options.out / file)
    print(f"{text}\n\nSaved to {options.out}/models.md and models.json")


if __name__ == "__main__":
    main()
