"""How much of what a network looks at lies on the object: a deformable network beside a plain one.

    python -m benchmarks.objects COCO_JSON IMAGES \\
        --deformable CONFIG CHECKPOINT --plain CONFIG CHECKPOINT

takes annotated objects, one from each image, large and small ones in turn. The node is the head of
the object's box, or for a segmentor the pixel of the object that is farthest from its border. It
prints a table of means, and saves all numbers in `work_dirs/objects/`.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from torch import nn

from mmdcn.analysis.drawing import Finding, inside
from mmdcn.analysis.subject import Subject
from mmdcn.checkpoints import open_replacing
from mmdcn.engine import launch

ROOT = Path(__file__).resolve().parents[1]
# The convolutions that the deformable network has replaced.
PLAIN_LAYERS = re.compile(r"backbone\.layer[234]\.\d+\.conv2")
SHARES = {
    "receptive_field": "effective receptive field",
    "strength": "strength of all samples",
    "samples": "samples through three layers, by mask",
    "region": "saliency region",
}
OPTIONS = dict(epsilon=0.1, steps=20, searches=2, prune=20)  # of the region


def objects(coco: COCO, images: Path, most: int) -> Iterator[tuple[np.ndarray, np.ndarray, list]]:
    """Images, masks ``(H, W)`` and boxes (x1, y1, x2, y2) of objects that are no crowds."""
    for number, image in enumerate(sorted(coco.loadImgs(coco.getImgIds()), key=lambda i: i["id"])):
        known = coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False))
        if not known or most == 0:
            continue
        most -= 1
        chosen = (max if number % 2 else min)(known, key=lambda annotation: annotation["area"])
        x, y, width, height = chosen["bbox"]
        box = [x, y, x + width, y + height]
        yield cv2.imread(str(images / image["file_name"])), coco.annToMask(chosen), box


def measure(model: nn.Module, scope: str, plain: list[str], chosen: tuple) -> dict[str, Any]:
    """The shares of one object, and the seconds that they have taken."""
    image, mask, box = chosen
    subject = Subject(model, image, scope)
    if scope == "mmdet":
        node = subject.box(box)
    else:
        padded = np.pad(mask, 1)
        y, x = np.unravel_index(
            cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1].argmax(), mask.shape
        )
        node = subject.point(int(x), int(y))
    shape = cv2.resize(mask, subject.size[::-1], interpolation=cv2.INTER_NEAREST)
    node.shape = torch.from_numpy(shape > 0)
    begin = time.perf_counter()
    layers = subject.sampling(node, plain)
    field = subject.receptive_field(node)
    middle = time.perf_counter()
    region = subject.region(node, **OPTIONS)
    end = time.perf_counter()
    numbers = inside(subject, Finding(node, field, layers, region))
    return numbers | dict(seconds=middle - begin, region_seconds=end - middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations")
    parser.add_argument("images", type=Path)
    for name in ("deformable", "plain"):
        parser.add_argument(f"--{name}", nargs=2, required=True, metavar=("CONFIG", "CHECKPOINT"))
    parser.add_argument("--objects", type=int, default=60)
    args = parser.parse_args()
    models = {name: launch.load_model(*getattr(args, name)) for name in ("deformable", "plain")}
    plain = [
        name
        for name, layer in models["plain"][0].named_modules()
        if PLAIN_LAYERS.fullmatch(name) and isinstance(layer, nn.Conv2d)
    ]
    found: dict[str, list[dict]] = {name: [] for name in models}
    for chosen in objects(COCO(args.annotations), args.images, args.objects):
        for name, (model, scope) in models.items():
            names = plain if name == "plain" else []
            found[name].append(measure(model, scope, names, chosen))
        if sys.stderr.isatty():
            print(f"\r{len(found['plain'])}/{args.objects} objects", end="", file=sys.stderr)
    report(found, Path(args.deformable[0]).stem)


def report(found: dict[str, list[dict]], name: str) -> None:
    count = len(found["plain"])
    area = np.mean([numbers["object_area"] for numbers in found["plain"]])
    print(f"\n{count} objects, which cover {area:.1%} of their images on average\n")
    print("| Share inside the object | deformable | plain | difference |\n|:--|--:|--:|--:|")
    for key, title in [*SHARES.items(), ("region_area", "area of the region / image")]:
        pairs = [
            (a[key], b[key])
            for a, b in zip(found["deformable"], found["plain"], strict=True)
            if None not in (a[key], b[key])
        ]
        ours, theirs = np.array(pairs).T
        error = (ours - theirs).std(ddof=1) / len(pairs) ** 0.5
        print(
            f"| {title} | {ours.mean():.3f} | {theirs.mean():.3f} "
            f"| {(ours - theirs).mean():+.3f} ± {error:.3f} |"
        )
    for kind, numbers in found.items():
        times = [[one[key] for one in numbers] for key in ("seconds", "region_seconds")]
        print(f"\n{kind}: median {np.median(times[0]):.2f} s, region {np.median(times[1]):.1f} s")
    out = ROOT / "work_dirs" / "objects" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_replacing(out) as file:
        file.write(json.dumps(found, indent=1).encode())
    print(f"\n{out}")


if __name__ == "__main__":
    main()
