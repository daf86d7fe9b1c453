"""A project for detection or instance segmentation, from files in COCO's format."""

import math
import os
from pathlib import Path
from statistics import median

from mmdcn.datasets import coco_format, images
from mmdcn.datasets.coco_checks import Checked, Use, check_file
from mmdcn.datasets.errors import Findings
from mmdcn.engine.errors import UsageError
from mmdcn.new.project import (
    Choice,
    Machine,
    Name,
    choose_rate,
    choose_start,
    repetitions,
)
from mmdcn.new.recipes import Recipe, with_classes

# A small image is not enlarged by more than this.
MAX_ENLARGEMENT = 2


def choose(recipe: Recipe, paths: list[str], machine: Machine) -> Choice:
    """Settings for a data set.

    Args:
        recipe: What the project starts from.
        paths: Annotations for training and for validation, one folder of images or two.
        machine: Where the training will run.

    Raises:
        UsageError: The recipe is for another task, or paths are missing.
        DatasetError: The data cannot be used.
    """
    if recipe.cfg.get("default_scope") != "mmdet":
        raise UsageError(f"--coco: {recipe.name} is for semantic segmentation; take --masks")
    if len(paths) not in (3, 4):
        raise UsageError(
            "--coco: expected annotations for training, annotations for validation, and one or two "
            f"folders of images, got {len(paths)} paths"
        )
    train_file, val_file, *folders = map(os.path.abspath, paths)
    train_folder, val_folder = folders[0], folders[-1]
    masks = bool(recipe.cfg.model.get("roi_head", {}).get("mask_head"))
    classes = _classes(train_file)
    train = _check(train_file, train_folder, classes, masks, "training")
    val = _check(val_file, val_folder, classes, masks, "validation")

    choice = Choice()
    choice.note(f"{len(classes)} classes: {', '.join(classes)}")
    choice.note(
        f"{len(train.images)} images with {train.used} objects for training, {len(val.images)} "
        f"with {val.used} for validation" + (", with masks" if masks else "")
    )
    settings = choice.settings
    settings["classes"] = classes
    settings["metainfo"] = dict(classes=Name("classes"))
    settings["model"] = with_classes(recipe.cfg.model, len(classes))
    _choose_data(choice, recipe, machine, train, (train_file, train_folder), (val_file, val_folder))
    choose_rate(choice, recipe, machine, recipe.cfg.train_dataloader.batch_size)
    choose_start(choice, recipe)
    return choice


def _classes(file: str) -> tuple[str, ...]:
    """Names of the categories, by id."""
    where = f"--coco {file}"
    if not os.path.isfile(file):
        raise UsageError(f"{where}: there is no such file")
    faults = Findings()
    parts = coco_format.read(file, where).categories
    found = coco_format.decode_all(parts, coco_format.Category, "categories", faults)
    categories = sorted((category for _, category in found), key=lambda category: category.id)
    faults.raise_if_any(where)
    if not categories:
        raise UsageError(f"{where}: it has no categories")
    return tuple(category.name for category in categories)


def _check(file: str, folder: str, classes: tuple[str, ...], masks: bool, what: str) -> Checked:
    where = f"--coco {file}"
    if not os.path.isfile(file):
        raise UsageError(f"{where}: there is no such file")
    if not os.path.isdir(folder):
        raise UsageError(f"--coco {folder}: there is no such folder")
    use = Use(classes=classes, train_masks=masks and what == "training", evaluate_masks=masks)
    checked = check_file(file, where, use)
    if checked.missing:
        raise UsageError(
            f"{where}: it has no category for {', '.join(checked.missing)}, as the other file has"
        )
    names = [image.file_name for image in checked.images.values()]
    images.check_names(folder, names, where)
    return checked


def _choose_data(choice, recipe, machine, checked, train, val) -> None:
    cfg, settings = recipe.cfg, choice.settings
    batch_size = cfg.train_dataloader.batch_size
    settings["scale"] = _choose_scale(choice, cfg, checked)
    for name, loader in (("train", cfg.train_dataloader), ("test", cfg.test_dataloader)):
        settings[f"{name}_pipeline"] = _resized(loader.dataset.pipeline)
    dataset = _dataset(*train, "train_pipeline")
    epochs = cfg.train_cfg.get("max_epochs")
    if epochs and (times := repetitions(len(checked.images), batch_size, epochs)) > 1:
        whole = {**cfg.train_dataloader.dataset.to_dict(), **dataset}
        whole = {k: v for k, v in whole.items() if v is not None and k != "_scope_"}
        dataset = dict(_delete_=True, type="RepeatDataset", times=times, dataset=whole)
        steps = math.ceil(len(checked.images) * times / (batch_size * max(machine.gpus, 1)))
        choice.note(f"{epochs} epochs of {steps} steps, each goes through the images {times} times")
    loading = dict(num_workers=machine.workers, persistent_workers=True)
    settings["train_dataloader"] = dict(batch_size=batch_size, **loading, dataset=dataset)
    settings["val_dataloader"] = dict(**loading, dataset=_dataset(*val, "test_pipeline"))
    settings["val_evaluator"] = dict(ann_file=val[0])
    settings["test_dataloader"] = Name("val_dataloader")
    settings["test_evaluator"] = Name("val_evaluator")


def _dataset(file: str, folder: str, pipeline: str) -> dict:
    return dict(
        data_root="",
        ann_file=file,
        data_prefix=dict(img=_slash(folder)),
        metainfo=Name("metainfo"),
        pipeline=Name(pipeline),
    )


def _slash(folder: str) -> str:
    return str(Path(folder)) + os.sep


def _choose_scale(choice: Choice, cfg, checked: Checked) -> tuple[int, int]:
    """Longer and shorter side that images are resized to."""
    steps = cfg.test_dataloader.dataset.pipeline
    long, short = next(tuple(s.scale) for s in steps if s.type.endswith("Resize"))
    sizes = [sorted((image.width, image.height)) for image in checked.images.values()]
    have_short, have_long = (median(size[i] for size in sizes) for i in range(2))
    factor = min(1, MAX_ENLARGEMENT * max(have_long / long, have_short / short))
    scale = tuple(max(32, round(side * factor / 32) * 32) for side in (long, short))
    scale = (long, short) if factor == 1 else scale
    choice.note(
        f"images are resized to {scale[0]} x {scale[1]} pixels at most; the median image has "
        f"{have_long:g} x {have_short:g}"
    )
    return scale


def _resized(pipeline) -> list[dict]:
    """A pipeline whose images are resized to the config's `scale`."""
    steps = [step.to_dict() for step in pipeline]
    kinds = [step["type"].rpartition(".")[2] for step in steps]
    if "Resize" not in kinds and "RandomChoice" not in kinds:
        resize = dict(type="Resize", scale=None, keep_ratio=True)
        at = kinds.index("LoadAnnotations") + 1
        steps.insert(at, resize)
    for step in steps:
        if step["type"].endswith("Resize") and "scale" in step:
            step["scale"] = Name("scale")
        if step.get("backend_args", 0) is None:
            del step["backend_args"]
    return [dict(type=step.pop("type"), **step) for step in steps]
