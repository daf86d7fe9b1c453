"""Draw what a node of a detector or segmentor looks at: where its deformable layers sample, its
effective receptive field, and the smallest region of the image that it needs."""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch

from mmdcn.analysis.drawing import COLUMNS, Finding, draw, inside
from mmdcn.analysis.recording import is_plain
from mmdcn.analysis.subject import Node, Subject
from mmdcn.checkpoints import open_replacing
from mmdcn.engine import launch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    parser.add_argument("checkpoint", help="checkpoint file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--point", type=float, nargs=2, metavar=("X", "Y"), help="a node at this pixel"
    )
    where.add_argument(
        "--box", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"), help="the head of this box"
    )
    where.add_argument(
        "--detection",
        type=int,
        metavar="K",
        help="the head of a detection, from 0 for the best (default for detectors with RoI heads; "
        "otherwise the middle of the image)",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("CONFIG", "CHECKPOINT"),
        help="a second model, drawn below the first, for the same point or box",
    )
    parser.add_argument(
        "--target-layers",
        nargs="+",
        metavar="NAME",
        help="layers whose samples are drawn; plain convolutions and RoIAlign among them count as "
        "deformable ones without offsets (default: all deformable ones that the node depends on)",
    )
    parser.add_argument(
        "--preview-model", action="store_true", help="print the names of the layers, and stop"
    )
    parser.add_argument("--region", action="store_true", help="look for the region (takes minutes)")
    parser.add_argument("--epsilon", type=float, default=0.1, help="bound of the region's error")
    parser.add_argument("--out-dir", default="work_dirs/deformation", help="where to write")
    parser.add_argument("--score-thr", type=float, default=0.3, help="lowest score of detections")
    launch.add_device(parser)
    launch.add_config_options(parser)
    return parser.parse_args()


def choose(subject: Subject, args: argparse.Namespace) -> Node:
    if args.box:
        return subject.box(args.box)
    if args.point:
        return subject.point(*args.point, args.score_thr)
    if args.detection is not None:
        return subject.detection(args.detection, args.score_thr)
    if hasattr(subject.model, "roi_head") and len(subject.detections(args.score_thr)):
        return subject.detection(0, args.score_thr)
    height, width = subject.image.shape[:2]
    return subject.point(width // 2, height // 2, args.score_thr)


def analyse(subject: Subject, node: Node, args: argparse.Namespace) -> Finding:
    modules = dict(subject.model.named_modules())
    wanted = args.target_layers or []
    if unknown := [name for name in wanted if name not in modules]:
        raise launch.UsageError(
            f"--target-layers: the model has no {unknown[0]!r}; see --preview-model"
        )
    plain = [name for name in wanted if is_plain(modules[name])]
    found = subject.sampling(node, plain)
    if wanted:
        found = [item for item in found if item.sampling.layer in wanted]
    else:
        found = [item for item in found if item.total.any()]
    region = subject.region(node, epsilon=args.epsilon) if args.region else None
    return Finding(node, subject.receptive_field(node), found, region)


def write(subjects: list[Subject], findings: list[Finding], titles: list[str], args) -> None:
    columns = len(COLUMNS) - (not args.region)
    figure, axes = plt.subplots(
        len(subjects), columns, figsize=(3.6 * columns, 3.6 * len(subjects) + 0.4), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, subject, finding, title in zip(axes, subjects, findings, titles, strict=True):
        draw(row, subject, finding, title)
    out = Path(args.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    stem = out / Path(args.image).stem
    with open_replacing(f"{stem}.png") as file:
        figure.savefig(file, format="png", dpi=140)
    numbers = {title: inside(s, f) for s, f, title in zip(subjects, findings, titles, strict=True)}
    with open_replacing(f"{stem}.json") as file:
        file.write(json.dumps(numbers, indent=2).encode())
    for title, values in numbers.items():
        shown = ", ".join(
            f"{name} {value:.3f}" for name, value in values.items() if isinstance(value, float)
        )
        print(f"{title}: {values['node']}; {shown}")
    print(f"{stem}.png, {stem}.json")


def main() -> None:
    args = parse_args()
    image = launch.read_image(args.image)
    models = [(args.config, args.checkpoint), *([args.compare] if args.compare else [])]
    subjects, findings, titles = [], [], []
    for config, checkpoint in models:
        model, scope = launch.load_model(config, checkpoint, args.device, args.cfg_options)
        subject = Subject(model, np.ascontiguousarray(image), scope)
        if args.preview_model:
            for item in subject.deformable_layers():
                print(f"{item.layer}: {item.operator}, samples a map of {item.map_size}")
            continue
        try:
            node = choose(subject, args)
            findings.append(analyse(subject, node, args))
        except ValueError as error:
            raise launch.UsageError(f"{config}: {error}") from error
        if not args.box and args.detection is None and not args.point:
            # The second model is asked about the same place.
            args.point = [
                (p + 0.5) / s - 0.5 for p, s in zip(node.place, subject.scale, strict=True)
            ]
        subjects.append(subject)
        titles.append(Path(config).stem)
    if subjects:
        titles = [f"{t} ({i + 1})" if titles.count(t) > 1 else t for i, t in enumerate(titles)]
        with torch.no_grad():
            write(subjects, findings, titles, args)


if __name__ == "__main__":
    launch.run_tool(main)
