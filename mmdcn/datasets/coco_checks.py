"""Checks of a file in COCO's format against the images, classes and pipeline of a config.

What makes training or evaluation fail, or silently go wrong, is an error. What MMDetection's data
set class leaves out is counted.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from mmdcn.datasets import coco_format, run_lengths
from mmdcn.datasets.coco_format import Annotation, Category, Image, MaskAnnotation, RunLengths
from mmdcn.datasets.errors import DatasetError, Findings, some

# No coordinate of an object may be further outside than this many times the image's longer side:
# pycocotools walks along each edge of a polygon, and crashes on numbers it cannot count to.
MAX_OUTSIDE = 10
FAR = f"coordinates beyond {MAX_OUTSIDE} times the size of the image"
SHORT = "a polygon of fewer than three points or of an odd number of values"
# Boxes are taken for corners if this share of them reaches outside of the image, and this share
# would fit as corners.
CORNERS_OUTSIDE, CORNERS_FIT = 0.1, 0.98
TEXTS_AT_ONCE = 5000


@dataclass
class Use:
    """What a config does with a file of annotations."""

    classes: tuple[str, ...] = ()
    labelled: bool = True  # annotations are needed
    train_masks: bool = False  # the pipeline loads masks ...
    polygons_only: bool = False  # ... and has no place for run lengths
    evaluate_masks: bool = False
    class_decides: bool = True  # the classes give the labels, not the order in the file
    tolerant_evaluation: bool = True  # with mmdcn.CocoMetric
    filter_cfg: dict | None = None  # of a data set for training


@dataclass
class Checked:
    """A file that can be used."""

    images: dict[int | str, Image]
    used: int = 0  # annotations with a label
    crowds: int = 0
    total: int = 0
    missing: list[str] = field(default_factory=list)  # classes without a category
    left_out: Findings = field(default_factory=Findings)

    def log(self, where: str, logger: logging.Logger) -> None:
        """One line for each kind of annotation that is left out, and one with the numbers."""
        if self.missing:
            logger.warning(f"{where}: it has no category for the classes {some(self.missing)}")
        for kind, count, places in self.left_out:
            logger.warning(f"{where}: {count} annotations {kind} (ids {places})")
        crowds = f", {self.crowds} crowd regions" if self.crowds else ""
        logger.info(
            f"{where}: {len(self.images)} images, {self.total} annotations{crowds}, {self.used} of "
            "them used"
        )


@coco_format.without_gc()
def check_file(file: str, where: str, use: Use) -> Checked:
    """Check all that a file says.

    Args:
        file: Path.
        where: Config field and file, for messages.
        use: What the config does with it.

    Raises:
        DatasetError: It cannot be used. One message says all that is wrong, by kind.
    """
    content = coco_format.read(file, where)
    if content.annotations is None and use.labelled:
        raise DatasetError(f"{where}: there is no list 'annotations' in it, as COCO's format asks")
    faults = Findings()
    images = _images(content.images, faults)
    categories = _categories(content.categories, faults)
    faults.raise_if_any(where)
    if not images:
        raise DatasetError(f"{where}: it has no images")
    checked = Checked(images)
    selected = _select(categories, use, where, checked)
    known = {category.id for category in categories}
    _Annotations(images, known, selected, use, checked, faults).run(content.annotations or [])
    faults.raise_if_any(where)
    if use.labelled and not checked.used:
        if not checked.total:
            raise DatasetError(f"{where}: it has no annotations")
        reasons = [f"{count} {kind}" for kind, count, _ in checked.left_out]
        reasons += [f"{checked.crowds} are crowd regions"] if checked.crowds else []
        raise DatasetError(
            f"{where}: none of its {checked.total} annotations is usable: {', '.join(reasons)}"
        )
    return checked


def _images(parts: list, faults: Findings) -> dict[int | str, Image]:
    images: dict[int | str, Image] = {}
    for index, image in coco_format.decode_all(parts, Image, "images", faults):
        place = f"images[{index}] (id {image.id})"
        if not (coco_format.whole(image.width) and coco_format.whole(image.height)):
            faults.add("images: width and height must be whole numbers", place)
        elif image.width * image.height > coco_format.MAX_PIXELS:
            faults.add(f"images: they have more than {coco_format.MAX_PIXELS} pixels", place)
        if image.id in images:
            faults.add("image ids occur more than once", image.id)
        images[image.id] = image
    if len({type(number) for number in images}) > 1:
        faults.add("image ids are numbers and texts", some(list(images)))
    return images


def _categories(parts: list, faults: Findings) -> list[Category]:
    found = [
        category for _, category in coco_format.decode_all(parts, Category, "categories", faults)
    ]
    for key in ("id", "name"):
        seen = set()
        for category in found:
            value = getattr(category, key)
            if value in seen:
                faults.add(f"category {key}s occur more than once", value)
            seen.add(value)
    return found


def _select(categories: list[Category], use: Use, where: str, checked: Checked) -> set[int]:
    """Ids of the categories that the config's classes select."""
    ids = {category.name: category.id for category in categories}
    classes = use.classes or tuple(ids)
    missing = [name for name in classes if name not in ids]
    if len(missing) == len(classes):
        raise DatasetError(
            f"{where}: none of the classes ({some(missing)}) is among its categories "
            f"({some(list(ids))}); set metainfo=dict(classes=(...)) of the data set"
        )
    if not use.class_decides:
        order = [name for name in ids if name in classes]
        if order != list(classes):
            raise DatasetError(
                f"{where}: its categories are ({some(order)}) and the classes of the config are "
                f"({some(list(classes))}); this class of data set or metric numbers labels in the "
                "order of the file. Give both the same order, or use mmdcn.CocoDataset and "
                "mmdcn.CocoMetric, for which the classes of the config decide"
            )
    checked.missing = missing
    return {ids[name] for name in classes if name in ids}


class _Annotations:
    """Goes through all annotations once, a few microseconds for each."""

    def __init__(
        self,
        images: dict[int | str, Image],
        known: set[int],
        selected: set[int],
        use: Use,
        checked: Checked,
        faults: Findings,
    ) -> None:
        self.images, self.known, self.selected, self.use = images, known, selected, use
        self.checked, self.faults = checked, faults
        self.masks = use.train_masks or use.evaluate_masks
        self.outside = self.corners = self.boxes = 0
        self.texts: list[tuple[str, int, str]] = []  # run lengths, pixels, place
        self.occupied: set[int | str] = set()  # images with an annotation of a selected category

    def run(self, parts: list) -> None:
        kind = MaskAnnotation if self.masks else Annotation
        ids: set[int] = set()
        self.checked.total = len(parts)
        for index, item in coco_format.decode_all(parts, kind, "annotations", self.faults):
            if item.id in ids:
                self.faults.add("annotation ids occur more than once", item.id)
            ids.add(item.id)
            image = self.images.get(item.image_id)
            if image is not None and item.category_id in self.selected:
                self._check(index, item, image)
                continue
            if image is None:
                reason = "their image_id is not among the images"
            elif item.category_id not in self.known:
                reason = "their category_id is not among the categories"
            else:
                reason = "their category is not among the classes of the config"
            self.checked.left_out.add(f"skipped: {reason}", item.id)
        self._check_texts()
        if not self.faults:
            self._check_corners()
            self._check_filter()

    def _fault(self, kind: str, index: int, item: Annotation) -> None:
        self.faults.add(kind, f"annotations[{index}] (id {item.id})")

    def _check(self, index: int, item: Annotation, image: Image) -> None:
        """Check an annotation of a selected category in an image of the file."""
        self.occupied.add(item.image_id)
        if not self.use.tolerant_evaluation:
            if item.id == 0:
                self._fault("annotation id 0 means 'not found' in COCO's evaluation", index, item)
            if item.iscrowd is None:
                self._fault("there is no `iscrowd`, which COCO's evaluation reads", index, item)
        reason = _skip_reason(item, image)
        if self.masks and (not reason or self.use.evaluate_masks):
            reason = self._mask_reason(index, item, image) or reason
        if reason:
            self.checked.left_out.add(f"skipped: {reason}", item.id)
            return
        if item.iscrowd:
            self.checked.crowds += 1
        else:
            self.checked.used += 1
        self.boxes += 1
        x, y, width, height = item.bbox
        right, bottom = image.width + 1, image.height + 1
        self.corners += x < width <= right and y < height <= bottom
        if x + width > right or y + height > bottom or x < 0 or y < 0:
            self.outside += 1
            if max(map(abs, item.bbox)) > _limit(image):
                self._fault(f"bbox: {FAR}", index, item)

    def _mask_reason(self, index: int, item: MaskAnnotation, image: Image) -> str:
        """Check a mask; returns why MMDetection leaves the annotation out."""
        mask = item.segmentation
        if not mask:
            self._fault("no segmentation, which the pipeline or evaluator asks for", index, item)
        elif isinstance(mask, RunLengths):
            pixels = int(image.width * image.height)
            if mask.size != (image.height, image.width):
                self._fault("segmentation: its size is not that of the image", index, item)
            elif isinstance(mask.counts, str):
                self.texts.append((mask.counts, pixels, f"annotations[{index}] (id {item.id})"))
            elif sum(mask.counts) != pixels:
                self._fault("segmentation: the counts do not add up to the image", index, item)
            if self.use.polygons_only and not item.iscrowd:
                return "LoadAnnotations(poly2mask=False) cannot load their run lengths"
        else:
            limit = _limit(image)
            good = 0
            for polygon in mask:
                if coco_format.is_polygon(polygon):
                    good += 1
                    # the norm is no smaller than any of its numbers, and much faster
                    if math.hypot(*polygon) > limit and max(map(abs, polygon)) > limit:
                        self._fault(f"segmentation: {FAR}", index, item)
            if good == len(mask):
                return ""
            if self.use.evaluate_masks and not self.use.tolerant_evaluation:
                self._fault(f"segmentation: {SHORT}; COCO's evaluation fails on it", index, item)
            if not good:
                return SHORT
            self.checked.left_out.add(f"used without {SHORT}", item.id)
        return ""

    def _check_texts(self) -> None:
        for start in range(0, len(self.texts), TEXTS_AT_ONCE):
            texts, pixels, places = zip(*self.texts[start : start + TEXTS_AT_ONCE], strict=True)
            for good, place in zip(run_lengths.fits(texts, pixels), places, strict=True):
                if not good:
                    self.faults.add(
                        "annotations: their compressed run lengths are not valid", place
                    )

    def _check_corners(self) -> None:
        if self.outside > CORNERS_OUTSIDE * self.boxes and self.corners >= CORNERS_FIT * self.boxes:
            self.faults.add(
                "bbox: they look like corners x1, y1, x2, y2, COCO's format asks for x, y, width, "
                f"height: as such {self.outside} of {self.boxes} reach outside of their image",
                "all",
            )

    def _check_filter(self) -> None:
        rule: dict[str, Any] = self.use.filter_cfg or {}
        least = rule.get("min_size", 0)
        kept = (
            min(image.width, image.height) >= least
            for image in self.images.values()
            if image.id in self.occupied or not rule.get("filter_empty_gt")
        )
        if not any(kept) and self.use.labelled:
            self.faults.add(f"filter_cfg {dict(rule)} leaves no image", "all")


def _limit(image: Image) -> float:
    return MAX_OUTSIDE * max(image.width, image.height)


def _skip_reason(item: Annotation, image: Image) -> str:
    """Why CocoDataset leaves an annotation out."""
    x, y, width, height = item.bbox
    if item.ignore:
        return "they are marked with 'ignore'"
    if width < 1 or height < 1 or item.area <= 0:
        return "their box is smaller than a pixel or their area is not positive"
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        return "their box lies outside of the image"
    return ""
