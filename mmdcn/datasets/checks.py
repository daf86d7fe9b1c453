"""Checks of the data sets of a config before a run.

A wrong path or a broken annotation otherwise shows up as a traceback in a data loader worker, or
not at all. What the data set class would skip silently is counted in the log; what would break
the run is an error that names the config field and the file. Folders are listed once and a sample
of the images' headers is read; all files are checked as the run loads them.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, METRICS
from torch import nn

from mmdcn.datasets import images
from mmdcn.datasets.coco_checks import Checked, Use, check_file
from mmdcn.datasets.errors import DatasetError, some
from mmdcn.datasets.heads import check_heads
from mmdcn.datasets.label_maps import check_segmentation, require_file, require_folder

IMAGE_LOADERS = tuple(f"{scope}LoadImageFromFile" for scope in ("", "mmcv.", "mmdet.", "mmseg."))
OWN_IMAGE_LOADER = "mmdcn.LoadImageFromFile"
LABEL_LOADERS = ("LoadAnnotations", "mmseg.LoadAnnotations")
OWN_LABEL_LOADER = "mmdcn.LoadSegAnnotations"


def prepare_datasets(cfg: Config, loaders: Sequence[str]) -> None:
    """Put our loading, data set and metric in the place of those that they extend.

    Images and label maps are then checked as they are loaded, and the classes of the config decide
    the labels of a file in COCO's format. Data on anything but the local file system stays as it
    is, and so do classes derived from MMDetection's.

    Args:
        cfg: Complete config, changed in place; its ``default_scope`` is in force.
        loaders: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        DatasetError: A data set class refuses its arguments.
    """
    for loader in loaders:
        for field, dataset_cfg in _local_leaves(cfg, loader):
            dataset = _build_without_reading(dataset_cfg, field)
            if dataset is None:
                continue
            if type(dataset) is _base(type(dataset), "mmdet", "CocoDataset"):
                dataset_cfg["type"] = "mmdcn.CocoDataset"
            _replace_loading(dataset_cfg.get("pipeline", []), dataset)
        for _, evaluator, cls in _metrics(cfg, loader):
            own = cls and cls is _base(cls, "mmdet", "CocoMetric")
            if own and not evaluator.get("backend_args"):
                evaluator["type"] = "mmdcn.CocoMetric"


def _replace_loading(pipeline: Any, dataset: BaseDataset) -> None:
    classes = dataset.metainfo.get("classes")
    labels = classes and _base(type(dataset), "mmseg", "BaseSegDataset")
    for step in _steps(pipeline):
        if step.get("backend_args"):
            continue
        if step.get("type") in IMAGE_LOADERS:
            step["type"] = OWN_IMAGE_LOADER
        elif labels and step.get("type") in LABEL_LOADERS:
            step.update(
                type=OWN_LABEL_LOADER,
                num_classes=len(classes),
                ignore_index=dataset.ignore_index,
            )


def check_datasets(
    cfg: Config, loaders: Sequence[str], logger: logging.Logger, model: nn.Module | None = None
) -> None:
    """Check the data sets that a run reads.

    Data on anything but the local file system is not looked at.

    Args:
        cfg: Complete config; its ``default_scope`` is in force.
        loaders: Which of ``train``, ``val`` and ``test`` will be used.
        logger: Takes one line per data set and one per kind of skipped annotation.
        model: Built from the config; its heads are compared with the classes of the data sets.

    Raises:
        DatasetError: A data set cannot be used, alone or with the others or the model.
    """
    first: tuple[str, Sequence[str]] | None = None
    for loader in loaders:
        for field, evaluator, _ in _metrics(cfg, loader):
            if evaluator.get("ann_file") and not evaluator.get("backend_args"):
                require_file(evaluator["ann_file"], f"{field}.ann_file")
        for field, dataset_cfg in _local_leaves(cfg, loader):
            root = dataset_cfg.get("data_root")
            if root:
                require_folder(root, f"{field}.data_root")
            classes = _closed_classes(_build_without_reading(dataset_cfg, field))
            if not classes:
                continue
            first = first or (field, classes)
            if classes != first[1]:
                raise DatasetError(
                    f"the classes of {field} are ({some(classes)}), those of {first[0]} "
                    f"({some(first[1])}): a label would mean another class"
                )
            if model is not None:
                check_heads(model, classes, field)
    for loader in loaders:
        _check_loader(cfg, loader, logger)


def _closed_classes(dataset: BaseDataset | None) -> list[str]:
    """The classes that a model's heads must have; none where it reads names or stuff, too."""
    if dataset is None or getattr(dataset, "return_classes", False):
        return []
    if "thing_classes" in dataset.metainfo:
        return []
    return list(dataset.metainfo.get("classes") or [])


def _check_loader(cfg: Config, loader: str, logger: logging.Logger) -> None:
    metrics = [
        (field, evaluator, cls)
        for field, evaluator, cls in _metrics(cfg, loader)
        if _base(cls, "mmdet", "CocoMetric")
    ]
    own = all(_base(cls, "mmdcn", "CocoMetric") for *_, cls in metrics)
    use = Use(
        labelled=not any(evaluator.get("format_only") for _, evaluator, _ in _metrics(cfg, loader)),
        evaluate_masks=any(
            "segm" in evaluator.get("metric", "bbox") for _, evaluator, _ in metrics
        ),
        class_decides=own,
        tolerant_evaluation=own,
    )
    checked: dict[str, Checked] = {}
    for field, dataset_cfg in _local_leaves(cfg, loader):
        dataset = _build_without_reading(dataset_cfg, field)
        if dataset is None:
            continue
        cls = type(dataset)
        coco, segmentation = (
            _base(cls, *name) for name in (("mmdet", "CocoDataset"), ("mmseg", "BaseSegDataset"))
        )
        steps = list(_steps(dataset_cfg.get("pipeline", [])))
        if coco and cls.load_data_list is coco.load_data_list:
            use.classes = tuple(dataset.metainfo.get("classes") or ())
            here = _use_of(dataset, steps, use)
            checked[os.path.realpath(dataset.ann_file)] = _check_coco(
                dataset, field, here, _is_turned(steps), logger
            )
        elif segmentation and cls.load_data_list is segmentation.load_data_list:
            own_loading = any(
                step.get("type") in (*LABEL_LOADERS, OWN_LABEL_LOADER) for step in steps
            )
            check_segmentation(dataset, field, use.labelled, _is_turned(steps), own_loading, logger)
        elif dataset.ann_file and not os.path.isdir(dataset.ann_file):
            require_file(dataset.ann_file, f"{field}.ann_file")
    if checked:
        _check_evaluators(metrics, checked, use, logger)


def _use_of(dataset: BaseDataset, steps: list[dict], use: Use) -> Use:
    """What a data set does with its file, besides the evaluation."""
    masks = [step for step in steps if step.get("with_mask")]
    return replace(
        use,
        train_masks=bool(masks),
        polygons_only=any(not step.get("poly2mask", True) for step in masks),
        class_decides=use.class_decides and bool(_base(type(dataset), "mmdcn", "CocoDataset")),
        filter_cfg=None if dataset.test_mode else dataset.filter_cfg,
    )


def _check_coco(
    dataset: Any, field: str, use: Use, turned: bool | None, logger: logging.Logger
) -> Checked:
    """Check a file that MMDetection's CocoDataset reads, and its images."""
    file = dataset.ann_file
    require_file(file, f"{field}.ann_file")
    where = f"{field}.ann_file {file!r}"
    checked = check_file(file, where, use)
    folder = dataset.data_prefix.get("img", "")
    require_folder(folder or ".", f"{field}.data_prefix.img")
    found = list(checked.images.values())
    place = f"{where} and {field}.data_prefix.img"
    images.check_names(folder, [image.file_name for image in found], place)
    if turned is not None:
        files = [
            (os.path.join(folder, image.file_name), (image.width, image.height)) for image in found
        ]
        images.check_headers(files, turned, place, logger)
    checked.log(where, logger)
    return checked


def _check_evaluators(
    metrics: list, checked: dict[str, Checked], use: Use, logger: logging.Logger
) -> None:
    """Check the files of evaluators that are not those of the data sets."""
    for field, evaluator, _ in metrics:
        file = evaluator.get("ann_file")
        if not file or evaluator.get("backend_args") or os.path.realpath(file) in checked:
            continue
        where = f"{field}.ann_file {file!r}"
        found = check_file(file, where, use)
        for other, dataset in checked.items():
            missing = [number for number in dataset.images if number not in found.images]
            if missing:
                raise DatasetError(
                    f"{where}: it lacks {len(missing)} images of {other!r} (ids {some(missing)})"
                )
        found.log(where, logger)


def _local_leaves(cfg: Config, loader: str) -> Iterator[tuple[str, dict]]:
    """The data sets of a loader on the local file system, with their places in the config."""
    start = f"{loader}_dataloader.dataset"
    for field, dataset_cfg in _leaves(cfg[f"{loader}_dataloader"]["dataset"], start):
        if not dataset_cfg.get("backend_args"):
            yield field, dataset_cfg


def _leaves(dataset_cfg: dict, field: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside of wrappers such as RepeatDataset and ConcatDataset."""
    if "dataset" in dataset_cfg:
        yield from _leaves(dataset_cfg["dataset"], f"{field}.dataset")
    elif "datasets" in dataset_cfg:
        for index, inner in enumerate(dataset_cfg["datasets"]):
            yield from _leaves(inner, f"{field}.datasets[{index}]")
    else:
        yield field, dataset_cfg


def _metrics(cfg: Config, loader: str) -> Iterator[tuple[str, dict, type | None]]:
    """Metrics of a loader with their places in the config and their classes."""
    field = f"{loader}_evaluator"
    found = cfg.get(field) or []
    if isinstance(found, dict) and "metrics" in found:
        field, found = f"{field}.metrics", found["metrics"]
    for index, metric in enumerate(found if isinstance(found, list | tuple) else [found]):
        place = f"{field}[{index}]" if isinstance(found, list | tuple) else field
        yield place, metric, _class_of(metric, METRICS)


def _class_of(item: dict, registry: Any) -> type | None:
    with registry.switch_scope_and_registry(None) as scoped:
        cls = item.get("type")
        return scoped.get(cls) if isinstance(cls, str) else cls


def _base(cls: Any, package: str, name: str) -> type | None:
    """The class of a package that a class is or derives from.

    MMDetection and MMSegmentation are not imported for it: either may be missing.
    """
    for base in getattr(cls, "__mro__", ()):
        if base.__name__ == name and base.__module__.split(".")[0] == package:
            return base
    return None


def _steps(pipeline: Any) -> Iterator[dict]:
    """All steps of a pipeline, nested ones included."""
    if isinstance(pipeline, dict):
        if "type" in pipeline:
            yield pipeline
        pipeline = list(pipeline.values())
    if isinstance(pipeline, list | tuple):
        for item in pipeline:
            yield from _steps(item)


def _is_turned(steps: list[dict]) -> bool | None:
    """Whether images are turned upright by their EXIF orientation when they are loaded.

    None where something else than images of common formats may be loaded.
    """
    for step in steps:
        if step.get("type") in (*IMAGE_LOADERS, OWN_IMAGE_LOADER):
            backend = step.get("imdecode_backend", "cv2")
            color_type = step.get("color_type", "color")
            if backend != "tifffile":
                return backend != "turbojpeg" and color_type in ("color", "grayscale")
    return None


def _build_without_reading(dataset_cfg: dict, field: str) -> Any:
    """The data set with its defaults and joined paths, None if it is no BaseDataset."""
    cls = _class_of(dataset_cfg, DATASETS)
    if not (isinstance(cls, type) and issubclass(cls, BaseDataset)):
        return None
    with DATASETS.switch_scope_and_registry(None) as registry:
        try:
            return registry.build(dict(dataset_cfg, pipeline=[], lazy_init=True))
        except (AssertionError, TypeError, ValueError) as error:
            raise DatasetError(f"{field}: {cls.__name__} refuses its arguments: {error}") from error
