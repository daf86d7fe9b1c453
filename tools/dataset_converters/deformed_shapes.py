"""Write a small deterministic data set of geometrically deformed objects.

Every object is the outline of its class after a bend, a smooth non-rigid warp, anisotropic
scaling, shear and rotation. Texture, shading and background say nothing about the class, and grey
shapes lie around as distractors. There are three sets:

- ``shapes``: stars, crescents and fish. The hue hints at the class, as in nature, but one object in
  seven has a hue of any class.
- ``structures``: hooks, forks, crosses (2, 3 and 4 limbs from one joint) and open rings, thin, of
  any hue, over a large range of scales and aspects. Only the structure tells the class.
- ``singles``: all of these for classification, one in the middle of each image, deformed little.

A folder of one of the first two serves instance and semantic segmentation::

    deformed_shapes/
      manifest.json                             parameters and hashes of all files, written last
      train/  val/                              JPEG images
      annotations/instances_{train,val}.json    COCO instances (polygons; crowds as RLE)
      images/{training,validation}/             the same images in ADE20K's layout (hard links)
      annotations/{training,validation}/        PNG label maps in ADE20K's layout

Labels of the PNG maps (use ``reduce_zero_label=True``): 0 is unlabelled (crowd regions) and
ignored, 1 is the background, 2 and up are the classes in their order. For classification it is
``{train,val}/CLASS/``, as for ImageNet, and the manifest.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import cv2
from deformed_shapes_folder import OutputFolder
from deformed_shapes_progress import Progress
from deformed_shapes_scenes import CROWD, SETS, ShapeSet, annotate, draw_image

SPLITS = {"train": "training", "val": "validation"}  # COCO's name -> ADE20K's name
MARKER = "manifest.json"
# All other files that are ever written.
FILES = (
    r"(train|images/training|val|images/validation)/\d{6,}\.jpg|(train|val)/[a-z]+/\d{6,}\.jpg"
    r"|annotations/(training|validation)/\d{6,}\.png|annotations/instances_(train|val)\.json"
)
GENERATOR = "mmdcn deformed_shapes"
VERSION = 1  # raise it with every change of the pixels or annotations


def draw_files(
    index: int, *, seed: int, split: str, size: int, shapes: ShapeSet
) -> tuple[bytes, bytes, list[dict]]:
    """The JPEG file, the PNG label map and the COCO annotations without ids of one picture."""
    image, scene = draw_image(
        index, seed=seed, split=list(SPLITS).index(split), size=size, shapes=shapes
    )
    annotations, labels = annotate(scene)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    png = cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    return jpeg, png, annotations


def write_classes(root: Path, split: str, pictures: Iterable, shapes: ShapeSet) -> None:
    """A folder of images per class."""
    for name in shapes.classes:
        (root / split / name).mkdir(parents=True)
    for index, (jpeg, _, annotations) in enumerate(pictures):
        name = shapes.classes[annotations[0]["category_id"] - 1]
        (root / split / name / f"{index + 1:06d}.jpg").write_bytes(jpeg)


def write_scenes(root: Path, split: str, pictures: Iterable, shapes: ShapeSet, size: int) -> None:
    """COCO's and ADE20K's folders and files."""
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
            dict(id=i + 1, name=name, supercategory="shape")
            for i, name in enumerate(shapes.classes)
        ],
    )
    for index, (jpeg, png, annotations) in enumerate(pictures):
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
    with open(root / "annotations" / f"instances_{split}.json", "w") as file:
        json.dump(coco, file)


def watched(pictures: Iterable, progress: Progress) -> Iterator:
    for done, picture in enumerate(pictures, 1):
        yield picture
        progress.update(done)


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
    # Whatever matches the pattern of the files is taken for one of the set by those who read it.
    here = {name for name in folder.files() if folder.pattern.fullmatch(name)}
    return "complete" if here == set(manifest.get("files") or ()) else "different"


def generate(
    out: str | Path,
    name: str = "shapes",
    train: int | None = None,
    val: int | None = None,
    size: int | None = None,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
) -> bool:
    """Write a data set to ``out``, unless it is there already.

    The folder appears only when it is complete. An existing folder is replaced only if
    ``overwrite`` is true and this function wrote all its files, which are as it wrote them.

    Returns:
        Whether anything was written.

    Raises:
        FileExistsError: ``out`` holds something else, is a symbolic link, or is being written.
        ValueError: an argument is out of range.
    """
    shapes = SETS[name]
    train = shapes.train if train is None else train
    val = shapes.val if val is None else val
    size = shapes.size if size is None else size
    for argument, value, least in (
        ("train", train, CROWD + 1),
        ("val", val, CROWD + 1),
        ("size", size, 48),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"{argument} must be at least {least}, got {value}")
    folder = OutputFolder(Path(out).absolute(), MARKER, FILES)
    out = folder.path
    folder.clear_partial()
    parameters = dict(version=VERSION, train=train, val=val, size=size, seed=seed)
    if name != "shapes":
        parameters["set"] = name
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
        classes=shapes.classes,
    )
    if not shapes.centred:
        manifest["semantic_labels"] = ("unlabelled", "background", *shapes.classes)
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
            draw = partial(draw_files, seed=seed, split=split, size=size, shapes=shapes)
            pictures = watched(mapper(draw, range(count)), Progress(split, "images", count))
            if shapes.centred:
                write_classes(new, split, pictures, shapes)
            else:
                write_scenes(new, split, pictures, shapes, size)
    return True


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", dest="name", default="shapes", choices=SETS, help="see above")
    parser.add_argument("--out", help="folder to write (default data/deformed_SET)")
    for name, what in (
        ("train", "number of training images"),
        ("val", "number of validation images"),
        ("size", "width and height in pixels"),
    ):
        defaults = ", ".join(f"{getattr(shapes, name)} of {key}" for key, shapes in SETS.items())
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: {defaults})")
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
    args = parser.parse_args(argv)
    args.out = args.out or f"data/deformed_{args.name}"
    return args


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
        f"{args.out}: the images of {args.name} "
        + ("are written" if written else "are there already")
    )


if __name__ == "__main__":
    main()
