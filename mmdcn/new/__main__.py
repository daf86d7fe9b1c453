"""Write a config that trains a recipe of mmdcn on your own images, and say what was chosen.

Detection and instance segmentation, from annotations in COCO's format:

  python -m mmdcn.new pets --from mask-rcnn_internimage-t --coco train.json val.json images/

Semantic segmentation, from folders of images and of label maps:

  python -m mmdcn.new cracks --from upernet_internimage-t --masks train/images train/masks \\
      val/images val/masks --classes background crack
"""

import argparse
import shlex
import sys
from pathlib import Path

import mmdcn.registry  # noqa: F401 (which makes MMEngine find mmdcn's configs)
from mmdcn.datasets.errors import DatasetError
from mmdcn.engine.errors import UsageError
from mmdcn.new import detection, recipes, segmentation
from mmdcn.new.project import Machine, write


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmdcn.new",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", help="folder to make, for the config")
    parser.add_argument(
        "--from",
        dest="recipe",
        metavar="RECIPE",
        required=True,
        help="a config of mmdcn: its name or the beginning of it",
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--coco",
        nargs="+",
        metavar="PATH",
        help="annotations for training and for validation, and the folder of their images, or one "
        "folder for each",
    )
    data.add_argument(
        "--masks",
        nargs=4,
        metavar="PATH",
        help="folders of images and label maps for training, then for validation",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="with --masks: names of the values in the label maps, smallest value first",
    )
    return parser.parse_args(args)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    try:
        project = Path(args.project)
        if (project / "config.py").exists():
            raise UsageError(f"{project / 'config.py'} exists; choose another folder")
        recipe = recipes.find(args.recipe)
        if args.coco is not None:
            if args.classes:
                raise UsageError(
                    "--classes: with --coco the names come from the categories in the file; take "
                    "away the option, and change 'classes' in the config"
                )
            choice = detection.choose(recipe, args.coco, Machine.here())
        else:
            choice = segmentation.choose(
                recipe, args.masks, args.classes, project / "label_maps", Machine.here()
            )
        write(project / "config.py", recipe, choice)
    except (DatasetError, UsageError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{project / 'config.py'}, from {recipe.name}:")
    for line in choice.notes:
        print(f"- {line}")
    config, work_dir = project / "config.py", project / "work_dir"
    last = f"$(cat {shlex.quote(str(work_dir / 'last_checkpoint'))})"
    train = shlex.join(["mim", "train", "mmdcn", str(config), "--work-dir", str(work_dir)])
    test = shlex.join(["mim", "test", "mmdcn", str(config)])
    print(f"Train (again with --resume to go on after an interruption), and test, with\n  {train}")
    print(f'  {test} --checkpoint "{last}"')


if __name__ == "__main__":
    main()
