"""A project for semantic segmentation, from folders of images and label maps."""

import os
from collections import Counter
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from mmdcn.checkpoints import open_replacing
from mmdcn.datasets.errors import some
from mmdcn.datasets.images import open_header
from mmdcn.engine.errors import UsageError
from mmdcn.new.project import (
    MIN_ITERATIONS,
    Choice,
    Machine,
    Name,
    choose_rate,
    choose_start,
    scaled_schedule,
)
from mmdcn.new.recipes import Recipe, with_classes

IGNORED = 255
EPOCHS = 100  # a training goes through a set of ordinary size so often, if the recipe does
# Colours that are easy to tell apart; the first one is for a background.
PALETTE = [
    [64, 64, 64], [228, 26, 28], [55, 126, 184], [77, 175, 74], [152, 78, 163],
    [255, 127, 0], [255, 255, 51], [166, 86, 40], [247, 129, 191], [153, 153, 153],
]  # fmt: skip


def choose(
    recipe: Recipe,
    paths: list[str],
    classes: list[str] | None,
    converted: Path,
    machine: Machine,
) -> Choice:
    """Settings for a data set.

    Args:
        recipe: What the project starts from.
        paths: Folders of images and label maps for training, then for validation.
        classes: Names of the values in the label maps, the smallest first.
        converted: Folder for label maps whose values are not 0, 1, 2, ...
        machine: Where the training will run.

    Raises:
        UsageError: The recipe is for another task, or the data cannot be used.
    """
    if recipe.cfg.get("default_scope") != "mmseg":
        raise UsageError(f"--masks: {recipe.name} is for detection; take --coco")
    folders = [os.path.abspath(path) for path in paths]
    pairs = [_pairs(*folders[:2]), _pairs(*folders[2:])]
    values = Counter()
    for found in pairs:
        for _, file in found:
            values.update(_values(file))
    classes, labels = _labels(sorted(values), classes)
    choice = Choice()
    choice.note(f"{len(classes)} classes: {', '.join(classes)}")
    choice.note(f"{len(pairs[0])} images for training, {len(pairs[1])} for validation")
    if any(value != label for value, label in labels.items()):
        for i, name in ((0, "train"), (1, "val")):
            folders[2 * i + 1] = _convert(pairs[i], labels, converted / name)
        shown = ", ".join(f"{value} to {label}" for value, label in labels.items())
        choice.note(f"label maps with other values were written to {converted}: {shown}")
    elif IGNORED in labels:
        choice.note(f"pixels with {IGNORED} in the label maps are ignored")
    _choose_data(choice, recipe, machine, classes, pairs, folders)
    choose_rate(choice, recipe, machine, recipe.cfg.train_dataloader.batch_size)
    choose_start(choice, recipe)
    return choice


def _pairs(images: str, masks: str) -> list[tuple[str, str]]:
    """Images and their label maps, which have the same name up to the suffix."""
    found = []
    for folder in (images, masks):
        if not os.path.isdir(folder):
            raise UsageError(f"--masks {folder}: there is no such folder")
        files = sorted(p for p in Path(folder).iterdir() if p.is_file() and p.name[0] != ".")
        if not files:
            raise UsageError(f"--masks {folder}: it has no files")
        suffixes = Counter(path.suffix for path in files)
        if len(suffixes) > 1:
            raise UsageError(
                f"--masks {folder}: expected files with one suffix, got {', '.join(suffixes)}"
            )
        found.append({path.stem: str(path) for path in files})
    lonely = sorted(found[0].keys() ^ found[1].keys())
    if lonely:
        raise UsageError(
            f"--masks {images} {masks}: expected an image and a label map of each name up to the "
            f"suffix; in one folder only: {some(lonely)}"
        )
    return [(found[0][stem], found[1][stem]) for stem in found[0]]


def _read(file: str) -> np.ndarray:
    mask = cv2.imread(file, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise UsageError(f"--masks {file}: it cannot be read as an image")
    if mask.ndim == 3 and (mask[..., :1] == mask[..., :3]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UsageError(
            f"--masks {file}: expected one channel of 8 bits with the number of a class at each "
            f"pixel, got {1 if mask.ndim == 2 else mask.shape[2]} channels of {mask.dtype}"
        )
    return mask


def _values(file: str) -> list[int]:
    return np.unique(_read(file)).tolist()


def _labels(values: list[int], classes: list[str] | None) -> tuple[list[str], dict[int, int]]:
    """Names of the classes, and the label for each value in the files."""
    if classes is None:
        if len(values) != 2:
            raise UsageError(
                f"--classes: give a name for each value in the label maps, which are {values}"
            )
        classes = ["background", "foreground"]
    if len(classes) < 2:
        raise UsageError(
            "--classes: expected a name for each value, the background's among them, as in "
            f"'background {classes[0]}'; the label maps have the values {values}"
        )
    counted = [value for value in values if value != IGNORED]
    # As many names as values, of which the others are 0, 1, ...: then 255 has a name, too.
    is_named = values == [*range(len(classes) - 1), IGNORED]
    if counted and counted[-1] < len(classes) and not is_named:
        return classes, {value: value for value in values}
    if len(values) != len(classes):
        lossy = "; JPEG has changed them, save label maps as PNG" if len(values) > 100 else ""
        raise UsageError(
            f"--classes: {len(classes)} names, but the label maps have the {len(values)} values "
            f"{some(values)}{lossy}; give a name for each"
        )
    return classes, {value: label for label, value in enumerate(values)}


def _convert(pairs: list[tuple[str, str]], labels: dict[int, int], folder: Path) -> str:
    table = np.full(256, IGNORED, np.uint8)
    for value, label in labels.items():
        table[value] = label
    for _, file in pairs:
        with open_replacing(folder / f"{Path(file).stem}.png") as target:
            target.write(cv2.imencode(".png", table[_read(file)])[1].tobytes())
    return os.path.abspath(folder)


def _choose_data(choice, recipe, machine, classes, pairs, folders) -> None:
    cfg, settings = recipe.cfg, choice.settings
    width, height = _median_size(pairs[0])
    recipe_crop = tuple(cfg.model.data_preprocessor.size)
    crop = tuple(
        min(full, max(64, round(side / 32) * 32))
        for full, side in zip(recipe_crop, (height, width), strict=True)
    )
    choice.note(
        f"crops of {crop[1]} x {crop[0]} pixels, images resized by a factor of 0.5 to 2; the "
        f"median image has {width} x {height}"
    )
    settings["classes"] = tuple(classes)
    palette = [PALETTE[i % len(PALETTE)] for i in range(len(classes))]
    settings["metainfo"] = dict(classes=Name("classes"), palette=palette)
    settings["scale"], settings["crop_size"] = (width, height), crop
    settings["model"] = model = with_classes(cfg.model, len(classes))
    model["data_preprocessor"] = dict(size=Name("crop_size"))
    settings["train_pipeline"] = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=Name("scale"), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=Name("crop_size"), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]
    settings["test_pipeline"] = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=Name("scale"), keep_ratio=True),
        dict(type="ResizeToMultiple", size_divisor=32),
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    batch_size = cfg.train_dataloader.batch_size
    datasets = []
    for i, pipeline in enumerate(("train_pipeline", "test_pipeline")):
        image_folder, mask_folder = folders[2 * i : 2 * i + 2]
        datasets.append(
            dict(
                _delete_=True,
                type="BaseSegDataset",
                data_root="",
                data_prefix=dict(img_path=image_folder, seg_map_path=mask_folder),
                img_suffix=_suffix(image_folder),
                seg_map_suffix=_suffix(mask_folder),
                reduce_zero_label=False,
                metainfo=Name("metainfo"),
                pipeline=Name(pipeline),
            )
        )
    loading = dict(num_workers=machine.workers, persistent_workers=True)
    settings["train_dataloader"] = dict(batch_size=batch_size, **loading, dataset=datasets[0])
    settings["val_dataloader"] = dict(**loading, dataset=datasets[1])
    settings["test_dataloader"] = Name("val_dataloader")
    _choose_length(choice, cfg, batch_size, machine, len(pairs[0]))


def _suffix(folder: str) -> str:
    return next(p.suffix for p in Path(folder).iterdir() if p.is_file() and p.name[0] != ".")


def _median_size(pairs: list[tuple[str, str]]) -> tuple[int, int]:
    sizes = []
    for file, _ in pairs:
        with open_header(file) as image:
            sizes.append(image.size)
    return tuple(round(median(size[i] for size in sizes)) for i in range(2))


def _choose_length(choice, cfg, batch_size: int, machine: Machine, images: int) -> None:
    settings, recipe = choice.settings, cfg.train_cfg.max_iters
    epochs = EPOCHS * images / (batch_size * max(machine.gpus, 1))
    length = min(recipe, max(MIN_ITERATIONS, round(epochs)))
    interval = max(1, min(cfg.train_cfg.val_interval, length // 5))
    settings["train_cfg"] = dict(max_iters=length, val_interval=interval)
    schedulers = [s.to_dict() for s in cfg.param_scheduler]
    settings["param_scheduler"] = scaled_schedule(schedulers, recipe, length)
    settings["default_hooks"] = dict(checkpoint=dict(interval=interval))
    choice.note(f"{length} iterations (the recipe has {recipe}), evaluated every {interval}")
