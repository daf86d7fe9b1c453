"""Does deformation pay? Trainings that differ in nothing but the deformable layers.

    python -m benchmarks.deformation --task segmentation --seeds 0 1

trains the variants of a task from the same pre-trained weights, one process per core, and appends
each result to a JSON file, which tells later calls what is there already. The settings stand in
configs/demo; ``--report`` prints the tables of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mmdcn.checkpoints import open_replacing

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "plain": {},
    "dconv-c5": dict(type="mmdcn.DCN", stages=(False, False, False, True)),
    "dconv-c3-c5": dict(type="mmdcn.DCN"),
    "mdconv-c3-c5": dict(type="mmdcn.DCNv2"),
    "dcnv3-c3-c5": dict(type="mmdcn.DCNv3"),
    "dcnv4-c3-c5": dict(type="mmdcn.DCNv4"),
}
# Config, and what is measured.
TASKS = {
    "segmentation": ("fcn_r50-d16_structures", ["mIoU"]),
    "detection": (
        "faster-rcnn_r50-dc5_structures",
        [f"coco/bbox_mAP{size}" for size in ("", "_s", "_m", "_l")],
    ),
}


def options(variant: str) -> list[str]:
    """``--cfg-options`` of a variant."""
    layer = LAYERS[variant]
    if not layer:
        return []
    stages = layer.get("stages", (False, True, True, True))
    return [
        f"model.backbone.dcn.type={layer['type']}",
        f"model.backbone.stage_with_dcn={stages}".replace(" ", ""),
    ]


def command(task: str, variant: str, seed: int, folder: Path, more: list[str]) -> list[str]:
    config = ROOT / "configs" / "demo" / f"{TASKS[task][0]}.py"
    return [
        sys.executable,
        str(ROOT / "tools" / "train.py"),
        str(config),
        f"--work-dir={folder}",
        "--resume",
        "--cfg-options",
        f"randomness.seed={seed}",
        *options(variant),
        *more,
    ]


def metrics(folder: Path, names: list[str]) -> dict[str, float]:
    """The last values in the logs of a run."""
    found = {}
    for file in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            found |= {name: record[name] for name in names if name in record}
    if set(found) != set(names):
        raise RuntimeError(f"{folder}: its logs lack {', '.join(sorted(set(names) - set(found)))}")
    return found


def read(file: Path) -> list[dict]:
    return json.loads(file.read_text()) if file.is_file() else []


def add(file: Path, result: dict) -> None:
    with open_replacing(file) as stream:
        stream.write(json.dumps([*read(file), result], indent=1).encode())


def key(result: dict) -> tuple:
    return tuple(result[name] for name in ("setting", "task", "variant", "seed"))


def run(args: argparse.Namespace) -> None:
    done = {key(result) for result in read(args.out)}
    waiting = [
        (args.setting, task, variant, seed)
        for seed in args.seeds
        for task in args.task
        for variant in args.variants
        if (args.setting, task, variant, seed) not in done
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running: dict[subprocess.Popen, tuple] = {}
    try:
        while waiting or running:
            while waiting and len(running) < args.processes:
                item = setting, task, variant, seed = waiting.pop(0)
                folder = args.work_dir / setting / f"{task}_{variant}_{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                line = command(task, variant, seed, folder, args.cfg_options)
                with open(folder / "console.log", "ab") as log:
                    process = subprocess.Popen(
                        line, env=environment, stdout=log, stderr=subprocess.STDOUT
                    )
                running[process] = (item, folder, time.time())
            time.sleep(1)
            for process in [p for p in running if p.poll() is not None]:
                (setting, task, variant, seed), folder, begin = running.pop(process)
                if process.returncode:
                    raise RuntimeError(f"{folder}/console.log: a training failed")
                result = dict(
                    setting=setting,
                    task=task,
                    variant=variant,
                    seed=seed,
                    options=args.cfg_options,
                    seconds=round(time.time() - begin),
                    **metrics(folder, TASKS[task][1]),
                )
                add(args.out, result)
                print(json.dumps(result), flush=True)
    finally:
        for process in running:
            process.terminate()


def report(results: list[dict]) -> str:
    """A Markdown table for each setting and task: mean, deviation, difference to plain by seed."""
    lines = []
    for setting, task in dict.fromkeys((r["setting"], r["task"]) for r in results):
        chosen = [r for r in results if (r["setting"], r["task"]) == (setting, task)]
        names = TASKS[task][1]
        plain = {r["seed"]: r for r in chosen if r["variant"] == "plain"}
        lines += [f"\n{setting}, {task}, seeds {', '.join(map(str, plain))}\n"]
        lines += [f"| Layers | {' | '.join(names)} | difference to plain, by seed |"]
        lines += [f"|:--|{'--:|' * len(names)}:--|"]
        for variant in dict.fromkeys(r["variant"] for r in chosen):
            rows = sorted((r for r in chosen if r["variant"] == variant), key=lambda r: r["seed"])
            cells = []
            for name in names:
                values = [100 * r[name] if "mAP" in name else r[name] for r in rows]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
            scale = 100 if "mAP" in names[0] else 1
            paired = [
                scale * (r[names[0]] - plain[r["seed"]][names[0]])
                for r in rows
                if r["seed"] in plain
            ]
            by_seed = ", ".join(f"{d:+.1f}" for d in paired)
            mean = f"**{statistics.mean(paired):+.1f}** ({by_seed})" if paired else ""
            mean = "" if variant == "plain" else mean
            lines.append(
                f"| {variant} | {' | '.join(cells)} | {'' if variant == 'plain' else mean} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--variants", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--setting", default="default", help="name of these settings in the file")
    parser.add_argument("--cfg-options", nargs="*", default=[], help="as in tools/train.py")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "work_dirs" / "deformation.json")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "work_dirs" / "deformation")
    parser.add_argument("--report", action="store_true", help="only print the tables of --out")
    args = parser.parse_args()
    if not args.report:
        run(args)
    print(report(read(args.out)))


if __name__ == "__main__":
    main()
