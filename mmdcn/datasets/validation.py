"""Checks of the data sets of a config before a run.

A wrong path or a broken annotation otherwise shows up as a traceback in a data loader worker, or
not at all. What the data set class would skip silently is counted in the log; what would break
the run is an error that names the config field and the file. Folders are listed once, images are
not opened; label maps are checked one by one as the run loads them.
"""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

EXAMPLES = 3


class DatasetError(ValueError):
    """A data set cannot be used; the message names the config field and the file."""


class LabelMapError(DatasetError):
    """A label map cannot be used; the message names the file."""


def check_datasets(cfg: Config, loaders: tuple[str, ...], logger: logging.Logger) -> None:
    """Check the data sets that a run reads.

    Data on anything but the local file system is not looked at.

    Args:
        cfg: Complete config; its ``default_scope`` is in force.
        loaders: Which of ``train``, ``val`` and ``test`` will be used.
        logger: Takes one line per data set and one per kind of skipped annotation.

    Raises:
        DatasetError: A data set cannot be used.
    """
    for loader in loaders:
        evaluators = cfg.get(f"{loader}_evaluator") or []
        evaluators = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
        for evaluator in evaluators:
            if evaluator.get("ann_file") and not evaluator.get("backend_args"):
                _require_file(evaluator["ann_file"], f"{loader}_evaluator.ann_file")
        labelled = not any(evaluator.get("format_only") for evaluator in evaluators)
        start = f"{loader}_dataloader.dataset"
        for field, dataset_cfg in _leaves(cfg[f"{loader}_dataloader"]["dataset"], start):
            if not dataset_cfg.get("backend_args"):
                _check_dataset(dataset_cfg, field, labelled, logger)


def _leaves(dataset_cfg: dict, field: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside of wrappers such as RepeatDataset and ConcatDataset."""
    if "dataset" in dataset_cfg:
        yield from _leaves(dataset_cfg["dataset"], f"{field}.dataset")
    elif "datasets" in dataset_cfg:
        for index, inner in enumerate(dataset_cfg["datasets"]):
            yield from _leaves(inner, f"{field}.datasets[{index}]")
    else:
        yield field, dataset_cfg


def check_label_maps_on_loading(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Make MMSegmentation's pipelines check each label map that they load.

    Args:
        cfg: Complete config; ``LoadAnnotations`` in its pipelines becomes
            :class:`mmdcn.datasets.loading.LoadSegAnnotations`. Its ``default_scope`` is in force.
        loaders: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        DatasetError: A data set class refuses its arguments.
    """
    from mmseg.datasets import BaseSegDataset  # configs of MMDetection do without

    for loader in loaders:
        start = f"{loader}_dataloader.dataset"
        for field, dataset_cfg in _leaves(cfg[f"{loader}_dataloader"]["dataset"], start):
            if dataset_cfg.get("backend_args"):
                continue
            dataset = _build_without_reading(dataset_cfg, field)
            if isinstance(dataset, BaseSegDataset) and dataset.metainfo.get("classes"):
                checks = dict(
                    type="mmdcn.LoadSegAnnotations",
                    num_classes=len(dataset.metainfo["classes"]),
                    ignore_index=dataset.ignore_index,
                )
                _replace_loading(dataset_cfg.get("pipeline", []), checks)


def _replace_loading(steps: Any, checks: dict) -> None:
    if isinstance(steps, dict):
        if steps.get("type") in ("LoadAnnotations", "mmseg.LoadAnnotations"):
            steps.update(checks)
        steps = list(steps.values())
    if isinstance(steps, list | tuple):
        for step in steps:
            _replace_loading(step, checks)


def _build_without_reading(dataset_cfg: dict, field: str) -> BaseDataset | None:
    """The data set with its defaults and joined paths, None if it is no BaseDataset."""
    with DATASETS.switch_scope_and_registry(None) as registry:
        cls = dataset_cfg["type"]
        cls = registry.get(cls) if isinstance(cls, str) else cls
        if not (isinstance(cls, type) and issubclass(cls, BaseDataset)):
            return None
        try:
            return registry.build(dict(dataset_cfg, pipeline=[], lazy_init=True))
        except (AssertionError, TypeError, ValueError) as error:
            raise DatasetError(f"{field}: {cls.__name__} refuses its arguments: {error}") from error


def _check_dataset(dataset_cfg: dict, field: str, labelled: bool, logger: logging.Logger) -> None:
    root = dataset_cfg.get("data_root")
    if root:
        _require_folder(root, f"{field}.data_root")
    dataset = _build_without_reading(dataset_cfg, field)
    if dataset is None:
        return
    cls = type(dataset)
    # MMDetection and MMSegmentation are imported only where a data set has done so already: either
    # may be missing.
    toolboxes = {base.__module__.split(".")[0] for base in cls.__mro__}
    if "mmdet" in toolboxes:
        from mmdet.datasets import CocoDataset

        if cls.load_data_list is CocoDataset.load_data_list:
            masks = any(step.get("with_mask") for step in dataset_cfg.get("pipeline", []))
            _check_coco(dataset, field, masks, labelled, logger)
            return
    if "mmseg" in toolboxes:
        from mmseg.datasets import BaseSegDataset

        if cls.load_data_list is BaseSegDataset.load_data_list:
            _check_segmentation(dataset, field, labelled, logger)
            return
    if dataset.ann_file and not os.path.isdir(dataset.ann_file):
        _require_file(dataset.ann_file, f"{field}.ann_file")


def _require_folder(path: str, field: str) -> None:
    if not os.path.isdir(path):
        raise DatasetError(f"{field}: there is no folder {path!r}{_relative_to(path)}")


def _require_file(path: str, field: str) -> None:
    if not os.path.isfile(path):
        raise DatasetError(f"{field}: there is no file {path!r}{_relative_to(path)}")


def _relative_to(path: str) -> str:
    return "" if os.path.isabs(path) else f" in {os.getcwd()}"


def _some(items: list) -> str:
    shown = ", ".join(str(item) for item in items[:EXAMPLES])
    return f"{shown}, ..." if len(items) > EXAMPLES else shown


def _check_coco(
    dataset: Any, field: str, masks: bool, labelled: bool, logger: logging.Logger
) -> None:
    """Check a file that MMDetection's CocoDataset reads."""
    file = dataset.ann_file
    _require_file(file, f"{field}.ann_file")
    content = _read_json(file, f"{field}.ann_file")
    where = f"{field}.ann_file {file!r}"
    for key in ("images", "categories", "annotations"):
        if not isinstance(content.get(key), list):
            if key == "annotations" and not labelled and key not in content:
                content[key] = []
                continue
            raise DatasetError(f"{where}: there is no list {key!r} in it, as COCO's format asks")

    images = _check_coco_images(content["images"], where)
    folder = dataset.data_prefix.get("img", "")
    _require_folder(folder or ".", f"{field}.data_prefix.img")
    missing = _absent(folder, [image["file_name"] for image in content["images"]])
    if missing:
        raise DatasetError(
            f"{where}: {len(missing)} of its {len(images)} images are not in "
            f"{field}.data_prefix.img {folder!r}: {_some(missing)}"
        )

    selected = _check_coco_classes(content["categories"], dataset.metainfo, where, logger)
    ids = [category["id"] for category in content["categories"]]
    used, skipped = _check_coco_annotations(
        content["annotations"], images, set(ids), selected, masks, where
    )
    for reason, examples in skipped.items():
        logger.warning(f"{where}: {len(examples)} annotations {reason} (ids {_some(examples)})")
    if labelled and not used:
        raise DatasetError(
            f"{where}: none of its {len(content['annotations'])} annotations is usable"
            if content["annotations"]
            else f"{where}: it has no annotations"
        )
    logger.info(
        f"{where}: {len(images)} images, {len(content['annotations'])} annotations, {used} of "
        "them used"
    )


def _read_json(file: str, field: str) -> dict:
    try:
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{field}: {file!r} is not a whole JSON file: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{field}: {file!r} holds a {type(content).__name__}; COCO's format is an object"
        )
    return content


def _require_keys(item: Any, keys: tuple[str, ...], where: str, kind: str, index: int) -> None:
    absent = [key for key in keys if not isinstance(item, dict) or key not in item]
    if absent:
        name = f"{kind}[{index}]"
        if isinstance(item, dict) and "id" in item:
            name += f" (id {item['id']})"
        raise DatasetError(f"{where}: {name} has no {absent[0]!r}")


def _check_coco_images(images: list[dict], where: str) -> dict[int, dict]:
    if not images:
        raise DatasetError(f"{where}: it has no images")
    for index, image in enumerate(images):
        _require_keys(image, ("id", "file_name", "width", "height"), where, "images", index)
    by_id = {image["id"]: image for image in images}
    if len(by_id) != len(images):
        repeated = [i for i, n in Counter(image["id"] for image in images).items() if n > 1]
        raise DatasetError(f"{where}: image ids occur more than once: {_some(repeated)}")
    return by_id


def _check_coco_classes(
    categories: list[dict], metainfo: dict, where: str, logger: logging.Logger
) -> set[int]:
    """Ids of the categories that the config's classes select."""
    for index, category in enumerate(categories):
        _require_keys(category, ("id", "name"), where, "categories", index)
    ids = {category["name"]: category["id"] for category in categories}
    classes = metainfo.get("classes") or tuple(ids)
    missing = [name for name in classes if name not in ids]
    if len(missing) == len(classes):
        raise DatasetError(
            f"{where}: none of the classes ({_some(missing)}) is among its categories "
            f"({_some(list(ids))}); set metainfo=dict(classes=(...)) of the data set"
        )
    if missing:
        logger.warning(f"{where}: it has no category for the classes {_some(missing)}")
    return {ids[name] for name in classes if name in ids}


def _check_coco_annotations(
    annotations: list[dict],
    images: dict[int, dict],
    known: set[int],
    selected: set[int],
    masks: bool,
    where: str,
) -> tuple[int, dict[str, list]]:
    """Count what CocoDataset uses, and list the ids of what it skips by reason."""
    used = 0
    skipped: dict[str, list] = {}
    keys = ("id", "image_id", "category_id", "bbox", "area")
    for index, annotation in enumerate(annotations):
        _require_keys(annotation, keys, where, "annotations", index)
        number, box = annotation["id"], annotation["bbox"]
        if not _is_box(box):
            raise DatasetError(
                f"{where}: annotations[{index}] (id {number}): bbox must be four finite numbers "
                f"[x, y, width, height], got {box!r}"
            )
        reason = _skip_reason(annotation, images.get(annotation["image_id"]), known, selected)
        if reason:
            skipped.setdefault(reason, []).append(number)
            continue
        if masks and not annotation.get("segmentation"):
            raise DatasetError(
                f"{where}: annotations[{index}] (id {number}) has no segmentation, which the "
                "pipeline asks for with LoadAnnotations(with_mask=True)"
            )
        used += 1
    return used, skipped


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    )


def _skip_reason(
    annotation: dict, image: dict | None, known: set[int], selected: set[int]
) -> str | None:
    if image is None:
        return "skipped: their image_id is not among the images"
    if annotation["category_id"] not in known:
        return "skipped: their category_id is not among the categories"
    if annotation["category_id"] not in selected:
        return "skipped: their category is not among the classes of the config"
    if annotation.get("ignore"):
        return "skipped: they are marked with 'ignore'"
    x, y, width, height = annotation["bbox"]
    inside_x = min(x + width, image["width"]) - max(x, 0)
    inside_y = min(y + height, image["height"]) - max(y, 0)
    if width < 1 or height < 1 or annotation["area"] <= 0:
        return "skipped: their box is smaller than a pixel or their area is not positive"
    if inside_x <= 0 or inside_y <= 0:
        return "skipped: their box lies outside of the image"
    return None


def _absent(folder: str, names: list[str]) -> list[str]:
    """Which of the files, given by their paths in the folder, do not exist."""
    listings: dict[str, set[str]] = {}
    absent = []
    for name in names:
        path = PurePosixPath(name)
        parent = str(path.parent)
        if parent not in listings:
            place = os.path.join(folder, parent)
            listings[parent] = set(os.listdir(place)) if os.path.isdir(place) else set()
        if path.name not in listings[parent]:
            absent.append(name)
    return absent


def _check_segmentation(dataset: Any, field: str, labelled: bool, logger: logging.Logger) -> None:
    """Check folders that MMSegmentation's BaseSegDataset reads."""
    images, maps = (dataset.data_prefix.get(key) for key in ("img_path", "seg_map_path"))
    _require_folder(images, f"{field}.data_prefix.img_path")
    if dataset.ann_file and not os.path.isdir(dataset.ann_file):
        _require_file(dataset.ann_file, f"{field}.ann_file")
        with open(dataset.ann_file, encoding="utf-8") as stream:
            names = [line.strip() for line in stream if line.strip()]
        missing = _absent(images, [name + dataset.img_suffix for name in names])
        if missing:
            raise DatasetError(
                f"{field}.ann_file {dataset.ann_file!r}: {len(missing)} of its {len(names)} images "
                f"are not in {images!r}: {_some(missing)}"
            )
    else:
        found = Path(images).rglob(f"*{dataset.img_suffix}")
        names = [
            path.relative_to(images).as_posix().removesuffix(dataset.img_suffix) for path in found
        ]
    if not names:
        raise DatasetError(
            f"{field}.data_prefix.img_path: there is no image *{dataset.img_suffix} in {images!r}"
        )
    if labelled and maps:
        _require_folder(maps, f"{field}.data_prefix.seg_map_path")
        missing = _absent(maps, [name + dataset.seg_map_suffix for name in names])
        if missing:
            raise DatasetError(
                f"{field}.data_prefix.seg_map_path {maps!r}: {len(missing)} of {len(names)} images "
                f"have no label map: {_some(missing)}"
            )
    logger.info(f"{field}: {len(names)} images in {images!r}")
