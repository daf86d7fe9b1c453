"""Write a small deterministic data set of geometrically deformed objects.

Every object is the outline of its class after a bend, a smooth non-rigid warp, anisotropic
scaling, shear and rotation. The hue hints at the class, as in nature, but one object in seven has
a hue of any class; texture, shading and background say nothing, and grey shapes lie around as
distractors.

One folder serves instance and semantic segmentation::

    deformed_shapes/
      manifest.json                             parameters and hashes of all files, written last
      train/  val/                              JPEG images
      annotations/instances_{train,val}.json    COCO instances (polygons; crowds as RLE)
      images/{training,validation}/             the same images in ADE20K's layout (hard links)
      annotations/{training,validation}/        PNG label maps in ADE20K's layout

Labels of the PNG maps (use ``reduce_zero_label=True``): 0 is unlabelled (crowd regions) and
ignored, 1 is the background, 2 and up are the classes in the order of ``CLASSES``.
"""

import argparse
import json
import math
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import cv2
import numpy as np
from deformed_shapes_annotations import annotation, has_holes
from deformed_shapes_drawing import (
    OUTLINES,
    background,
    coverage,
    deform,
    distractor,
    hue_of,
    paint,
    photograph,
)
from deformed_shapes_folder import OutputFolder
from deformed_shapes_progress import Progress

CLASSES = tuple(OUTLINES)
SPLITS = {"train": "training", "val": "validation"}  # COCO's name -> ADE20K's name
MARKER = "manifest.json"
# All other files that are ever written.
FILES = (
    r"(train|images/training|val|images/validation)/\d{6,}\.jpg"
    r"|annotations/(training|validation)/\d{6,}\.png|annotations/instances_(train|val)\.json"
)
GENERATOR = "mmdcn deformed_shapes"
VERSION = 1  # raise it with every change of the pixels or annotations

MIN_VISIBLE = 0.65  # share of an object that has to stay visible
CYCLE, EMPTY, CROWD = 32, 1, 2  # image i has no object if i % CYCLE == EMPTY, a crowd if == CROWD


# ------------------------------------------------------------------------------------------ scenes


class Scene:
    """Objects of one picture, back to front, with the masks of their visible parts."""

    def __init__(self, size: int):
        self.size = size
        self.alphas: list[tuple[np.ndarray, int]] = []  # coverage and category id
        self.masks: list[np.ndarray] = []  # visible part
        self.min_area: list[float] = []  # that has to stay visible
        self.labels: list[tuple[int, bool]] = []  # category id, is a crowd

    def add(self, points: np.ndarray, category: int) -> bool:
        """Put an object in front unless it or another one would be hidden or pierced."""
        alpha = coverage(points, self.size)
        mask = alpha >= 0.5
        needed = MIN_VISIBLE * cv2.contourArea(points.astype(np.float32))
        masks = [old & ~mask for old in self.masks] + [mask]
        min_area = [*self.min_area, max(needed, 1)]
        labels = [*self.labels, (category, False)]
        for visible, area, (_, crowd) in zip(masks, min_area, labels, strict=True):
            if visible.sum() < area or (not crowd and has_holes(visible)):
                return False
        self.alphas.append((alpha, category))
        self.masks, self.min_area, self.labels = masks, min_area, labels
        return True

    def add_crowd(self, outlines: list[np.ndarray], category: int) -> None:
        """Put a group behind everything else; its mask covers the gaps between its members too."""
        alphas = [coverage(points, self.size) for points in outlines]
        self.alphas += [(alpha, category) for alpha in alphas]
        union = (np.max(alphas, axis=0) >= 0.5).astype(np.uint8)
        mask = cv2.morphologyEx(union, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
        self.masks.append(mask)
        self.min_area.append(0.6 * mask.sum())
        self.labels.append((category, True))


def draw_scene(rng: np.random.Generator, size: int, kind: str) -> Scene:
    scene = Scene(size)
    if kind == "empty":
        return scene
    if kind == "crowd":
        category = int(rng.integers(len(CLASSES)))
        centre = rng.uniform(0.3, 0.7, 2) * size
        offsets = [(x, y) for y in (-1, 0, 1) for x in (-1.5, -0.5, 0.5, 1.5)]
        outlines = []
        for offset in offsets:
            scale = rng.uniform(0.06, 0.08) * size
            position = centre + (np.array(offset) + rng.uniform(-0.2, 0.2, 2)) * 0.13 * size
            outlines.append(deform(OUTLINES[CLASSES[category]](), rng) * scale + position)
        scene.add_crowd(outlines, category + 1)

    count = rng.integers(1, 3) if kind == "crowd" else rng.integers(1, 4)
    anchor = None
    for _ in range(count):
        category = int(rng.integers(len(CLASSES)))
        for _ in range(100):
            scale = math.exp(rng.uniform(math.log(0.24), math.log(0.4))) * size
            position = rng.uniform(0.08, 0.92, 2) * size
            if anchor is not None and rng.random() < 0.5:  # close to the last one: overlap
                position = anchor + rng.normal(0, 0.2 * size, 2)
            points = deform(OUTLINES[CLASSES[category]](), rng) * scale + position
            if scene.add(points, category + 1):
                anchor = position
                break
    return scene


def draw_image(index: int, *, seed: int, split: str, size: int) -> tuple[bytes, bytes, list[dict]]:
    """Draw one picture; it depends on nothing but the arguments.

    Returns:
        The JPEG file, the PNG label map and the COCO annotations without ids.
    """
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    kind = {EMPTY: "empty", CROWD: "crowd"}.get(index % CYCLE, "ordinary")
    scene = draw_scene(rng, size, kind)

    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), math.sin(angle)])  # points towards the light
    image = background(rng, size)
    for _ in range(rng.integers(0, 4)):
        scale = rng.uniform(0.05, 0.12) * size
        # Bent less: a strongly bent ellipse would be a crescent.
        points = deform(distractor(rng), rng, bend=0.25) * scale + rng.uniform(0, 1, 2) * size
        paint(image, coverage(points, size), light, rng)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))  # out of focus
    for alpha, category in scene.alphas:
        paint(image, alpha, light, rng, hue_of(category, rng))
    image = photograph(image, rng)

    annotations = []
    labels = np.ones((size, size), np.uint8)
    for mask, (category, crowd) in zip(scene.masks, scene.labels, strict=True):
        annotations.append(annotation(mask, category, crowd))
        labels[mask] = 0 if crowd else category + 1
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    png = cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    return jpeg, png, annotations


# ------------------------------------------------------------------------------------------- files


def write_split(root: Path, split: str, count: int, size: int, seed: int, mapper) -> None:
    folders = [root / split, root / "images" / SPLITS[split], root / "annotations" / SPLITS[split]]
    for folder in folders:
        folder.mkdir(parents=True)
    coco = dict(
        info=dict(
            description="Deformed shapes",
            url="",
            version=str(VERSION),
            year=2025,
            contributor="mmdcn",
            date_created="2025/01/01",
        ),
        licenses=[
            dict(id=1, name="Apache License 2.0", url="https://www.apache.org/licenses/LICENSE-2.0")
        ],
        images=[],
        annotations=[],
        categories=[
            dict(id=i + 1, name=name, supercategory="shape") for i, name in enumerate(CLASSES)
        ],
    )
    draw = partial(draw_image, seed=seed, split=split, size=size)
    progress = Progress(split, "images", count)
    for index, (jpeg, png, annotations) in enumerate(mapper(draw, range(count))):
        image_id = index + 1
        name = f"{image_id:06d}"
        source, link, label = (
            f / f"{name}{s}" for f, s in zip(folders, (".jpg", ".jpg", ".png"), strict=True)
        )
        source.write_bytes(jpeg)
        label.write_bytes(png)
        try:
            os.link(source, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, link)
        coco["images"].append(
            dict(
                id=image_id,
                file_name=source.name,
                width=size,
                height=size,
                license=1,
                date_captured="2025-01-01 00:00:00",
                coco_url="",
                flickr_url="",
            )
        )
        for item in annotations:
            ids = dict(id=len(coco["annotations"]) + 1, image_id=image_id)
            coco["annotations"].append(ids | item)
        progress.update(image_id)
    with open(root / "annotations" / f"instances_{split}.json", "w") as file:
        json.dump(coco, file)


def state_of(folder: OutputFolder, parameters: dict) -> str:
    """'missing', 'complete' (same parameters, all files), 'different' (ours) or 'foreign'."""
    out = folder.path
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return "missing"
    manifest = folder.read_manifest()
    if manifest is None or manifest.get("generator") != GENERATOR:
        return "foreign"
    if manifest.get("parameters") != parameters:
        return "different"
    for split, ade in SPLITS.items():
        if not (out / "annotations" / f"instances_{split}.json").is_file():
            return "different"
        for name in (split, f"images/{ade}", f"annotations/{ade}"):
            if len(list((out / name).glob("*.*"))) != parameters[split]:
                return "different"
    return "complete"


def generate(
    out: str | Path,
    train: int,
    val: int,
    size: int,
    seed: int,
    workers: int = 1,
    overwrite: bool = False,
) -> bool:
    """Write the data set to ``out``, unless it is there already.

    The folder appears only when it is complete. An existing folder is replaced only if
    ``overwrite`` is true and this function wrote all its files, which are as it wrote them.

    Returns:
        Whether anything was written.

    Raises:
        FileExistsError: ``out`` holds something else, is a symbolic link, or is being written.
        ValueError: an argument is out of range.
    """
    for name, value, least in (
        ("train", train, CROWD + 1),
        ("val", val, CROWD + 1),
        ("size", size, 48),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    folder = OutputFolder(Path(out).absolute(), MARKER, FILES)
    out = folder.path
    folder.clear_partial()
    parameters = dict(version=VERSION, train=train, val=val, size=size, seed=seed)
    state = state_of(folder, parameters)
    if state == "complete":
        return False
    if out.is_symlink():
        raise FileExistsError(f"{out} is a symbolic link; pass the folder itself as --out")
    if state == "foreign":
        raise FileExistsError(
            f"{out} exists and was not written by this script; choose another --out"
        )
    if state == "different" and not overwrite:
        raise FileExistsError(
            f"{out} holds a data set of other parameters or lacks files; "
            "pass --overwrite to replace it"
        )
    foreign = folder.foreign_files() if state == "different" else []
    if foreign:
        raise FileExistsError(
            f"{out} holds {len(foreign)} files that this script did not write, or that were "
            f"changed since: {', '.join(foreign[:3])}; move them away, or choose another --out"
        )

    manifest = dict(
        generator=GENERATOR,
        parameters=parameters,
        classes=CLASSES,
        semantic_labels=("unlabelled", "background", *CLASSES),
    )
    with folder.written(manifest, replace=state == "different") as new, ExitStack() as stack:
        mapper = map
        if workers > 1:
            # Ctrl-C reaches all processes; the workers leave it to this one, which ends them. The
            # start of Python's tracker, which otherwise comes with the first worker, unblocks it.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            pool = stack.enter_context(get_context("spawn").Pool(workers))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            mapper = partial(pool.imap, chunksize=4)
        for split, count in (("train", train), ("val", val)):
            write_split(new, split, count, size, seed, mapper)
    return True


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="data/deformed_shapes", help="folder to write")
    parser.add_argument("--train", type=int, default=1600, help="number of training images")
    parser.add_argument("--val", type=int, default=200, help="number of validation images")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; the files do not depend on it",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a data set that this script wrote with other parameters",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        written = generate(**vars(args))
    except (FileExistsError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped: nothing is kept; the same command starts anew", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print(
        f"{args.out}: {args.train} training and {args.val} validation images "
        + ("written" if written else "are there already")
    )


if __name__ == "__main__":
    main()
