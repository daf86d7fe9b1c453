"""Checks of a data set of MMSegmentation before a run: folders, headers, some of the labels."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import mmcv
import numpy as np

from mmdcn.datasets import images
from mmdcn.datasets.errors import DatasetError, some

# Label maps that are read before a run, and for how long; all others are checked on loading.
MAPS = 64
SECONDS = 2.0


def check_segmentation(
    dataset: Any,
    field: str,
    labelled: bool,
    turned: bool | None,
    own_loading: bool,
    logger: logging.Logger,
) -> None:
    """Check folders that MMSegmentation's BaseSegDataset reads.

    Args:
        dataset: Built, with nothing read yet.
        field: Where it stands in the config.
        labelled: Whether label maps are needed.
        turned: Whether images are turned upright by their EXIF orientation when they are loaded;
            None where their headers should not be looked at.
        own_loading: Whether label maps are loaded by ``mmdcn.LoadSegAnnotations``, so that their
            content is known to be labels.
        logger: Takes the number of images and warnings.

    Raises:
        DatasetError: A file is missing or of another size, or no pixel has a label.
    """
    folder, maps = (dataset.data_prefix.get(key) for key in ("img_path", "seg_map_path"))
    require_folder(folder, f"{field}.data_prefix.img_path")
    names = _names(dataset, folder, field)
    if not names:
        raise DatasetError(
            f"{field}.data_prefix.img_path: there is no image *{dataset.img_suffix} in {folder!r}"
        )
    files = [name + dataset.img_suffix for name in names]
    where = f"{field}.ann_file {dataset.ann_file!r}" if dataset.ann_file else f"{field}.data_prefix"
    images.check_names(folder, files, where)
    if labelled and maps:
        place = f"{field}.data_prefix.seg_map_path"
        require_folder(maps, place)
        labels = [name + dataset.seg_map_suffix for name in names]
        images.check_names(maps, labels, place, "label maps")
        pairs = [
            (os.path.join(folder, image), os.path.join(maps, label))
            for image, label in zip(files, labels, strict=True)
        ]
        if own_loading:
            if turned is not None:
                images.check_headers(pairs, turned, place, logger)
            _check_labels(dataset, [label for _, label in pairs], place, logger)
    logger.info(f"{field}: {len(names)} images in {folder!r}")


def require_folder(path: str, field: str) -> None:
    """Raise a :class:`DatasetError` unless there is a folder."""
    if not os.path.isdir(path):
        raise DatasetError(f"{field}: there is no folder {path!r}{_relative_to(path)}")


def require_file(path: str, field: str) -> None:
    """Raise a :class:`DatasetError` unless there is a file."""
    if not os.path.isfile(path):
        raise DatasetError(f"{field}: there is no file {path!r}{_relative_to(path)}")


def _relative_to(path: str) -> str:
    return "" if os.path.isabs(path) else f" in {os.getcwd()}"


def _names(dataset: Any, folder: str, field: str) -> list[str]:
    """Names of the images without their suffix, in the order of the data set."""
    if dataset.ann_file and not os.path.isdir(dataset.ann_file):
        require_file(dataset.ann_file, f"{field}.ann_file")
        try:
            with open(dataset.ann_file, encoding="utf-8") as stream:
                return [line.strip() for line in stream if line.strip()]
        except UnicodeDecodeError as error:
            raise DatasetError(f"{field}.ann_file {dataset.ann_file!r}: {error}") from error
    found = Path(folder).rglob(f"*{dataset.img_suffix}")
    return sorted(
        path.relative_to(folder).as_posix().removesuffix(dataset.img_suffix) for path in found
    )


def _check_labels(dataset: Any, maps: list[str], where: str, logger: logging.Logger) -> None:
    """Count the classes in some label maps as a run sees them."""
    from mmdcn.datasets.loading import LoadSegAnnotations  # needs MMSegmentation, as the data set

    classes = dataset.metainfo.get("classes")
    if not classes:
        return
    load = LoadSegAnnotations(num_classes=len(classes), ignore_index=dataset.ignore_index)
    counts = np.zeros(256, np.int64)  # of labels in training
    raw: set[int] = set()  # values in the files
    looked_at = 0
    deadline = time.monotonic() + SECONDS
    for file in maps[:: -(-len(maps) // MAPS)]:
        if looked_at and time.monotonic() > deadline:
            break
        results = dict(
            seg_map_path=file,
            seg_fields=[],
            label_map=dataset.label_map,
            reduce_zero_label=dataset.reduce_zero_label,
        )
        counts += np.bincount(load(results)["gt_seg_map"].ravel(), minlength=256)
        stored = mmcv.imread(file, "unchanged", backend="pillow")
        raw.update(np.unique(stored).tolist())
        looked_at += 1

    unseen = [name for label, name in enumerate(classes) if not counts[label]]
    if not unseen:
        return
    cause = _cause(raw, dataset.reduce_zero_label)
    if len(unseen) == len(classes):
        raise DatasetError(
            f"{where}: no pixel of {looked_at} label maps has a label of the "
            f"{len(classes)} classes; the maps hold the values {some(sorted(raw))}{cause}"
        )
    logger.warning(
        f"{where}: {len(unseen)} of {len(classes)} classes do not occur in {looked_at} label maps: "
        f"{some(unseen)}{cause}"
    )


def _cause(raw: set[int], reduce_zero_label: bool) -> str:
    """The usual reason for classes that are never seen."""
    if 255 in raw and raw <= {0, 255}:
        return (
            "; the maps hold 0 and 255 only, and 255 means that a pixel does not count: store the "
            "classes as 0, 1, 2, ..."
        )
    if reduce_zero_label and raw <= {0, 255}:
        return (
            "; with reduce_zero_label=True pixels of value 0 do not count, and 1 is the first class"
        )
    return ""
