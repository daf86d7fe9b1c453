"""MMDetection's COCO data set and metric with labels that the config alone decides.

MMDetection numbers labels in the order in which a file lists its categories, so files or configs in
another order give other labels. This module needs MMDetection.
"""

from collections.abc import Sequence

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.fileio import get_local_path
from msgspec.structs import asdict

from mmdcn.datasets import coco_format
from mmdcn.datasets.coco_format import Annotation, Category, Image, MaskAnnotation, RunLengths
from mmdcn.datasets.errors import DatasetError, Findings
from mmdcn.registry import DATASETS, METRICS


class CocoFile(COCO):
    """COCO's index of a file, read by :mod:`mmdcn.datasets.coco_format`.

    - Annotations are numbered anew from 1: in COCO's evaluation 0 means that nothing was found.
    - Those without ``iscrowd`` are no crowds.

    Args:
        annotation_file: Path.

    Raises:
        DatasetError: The file is not in COCO's format.
    """

    @coco_format.without_gc()
    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        content = coco_format.read(annotation_file, annotation_file)
        faults = Findings()
        images = coco_format.decode_all(content.images, Image, "images", faults)
        categories = coco_format.decode_all(content.categories, Category, "categories", faults)
        self.dataset = dict(
            images=[
                asdict(image) | dict(width=int(image.width), height=int(image.height))
                for _, image in images
            ],
            categories=[asdict(category) for _, category in categories],
        )
        if content.annotations is not None:
            # Masks that nobody asked for were not checked, and may be anything.
            annotations = coco_format.decode_all(
                content.annotations, MaskAnnotation, "annotations", faults, otherwise=Annotation
            )
            self.dataset["annotations"] = [
                _as_dict(annotation, number)
                for number, (_, annotation) in enumerate(annotations, 1)
            ]
        faults.raise_if_any(annotation_file)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Sequence = (), cat_ids: Sequence = ()
    ) -> list[int]:
        """Ids of categories, in the order of the names if these are given.

        A name that the file does not have gets a category of its own with a negative id, so that
        the others keep their places.

        Raises:
            DatasetError: Two categories have one name.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        by_name = {category["name"]: number for number, category in self.cats.items()}
        if len(by_name) < len(self.cats):
            raise DatasetError("two categories have one name or id")
        for name in cat_names:
            if name not in by_name:
                number = min(0, *self.cats) - 1 if self.cats else -1
                by_name[name] = number
                self.cats[number] = dict(id=number, name=name)
        return [by_name[name] for name in cat_names]


def _as_dict(annotation: Annotation, number: int) -> dict:
    """An annotation as pycocotools wants it."""
    content = asdict(annotation)
    content.update(id=number, bbox=list(annotation.bbox), iscrowd=int(bool(annotation.iscrowd)))
    mask = content.get("segmentation")
    if isinstance(mask, RunLengths):
        content["segmentation"] = dict(size=list(mask.size), counts=mask.counts)
    return content


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """MMDetection's ``CocoDataset``, whose labels are the places in ``metainfo['classes']``.

    Classes that the file does not have keep their labels, the order of the file's categories means
    nothing, and a file that is not in COCO's format is refused. Annotations have the keys of
    COCO's instances and no others.
    """

    COCOAPI = CocoFile


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """MMDetection's ``CocoMetric`` for :class:`CocoDataset`: labels are places in the class list.

    Annotation ids may begin with 0, ``iscrowd`` may be missing, and polygons that are none (fewer
    than three points, or an odd number of values) are left out. An object without a usable polygon
    counts as one whose mask is not found.

    Args:
        ann_file: As in MMDetection.
        backend_args: As in MMDetection.
        kwargs: MMDetection's other arguments; ``sort_categories`` has no effect.
    """

    def __init__(
        self, ann_file: str | None = None, backend_args: dict | None = None, **kwargs
    ) -> None:
        super().__init__(ann_file=None, backend_args=backend_args, **kwargs)
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=backend_args) as local_path:
                self._coco_api = CocoFile(local_path)
            for annotation in self._coco_api.dataset.get("annotations", ()):
                self._clean(annotation)

    def _clean(self, annotation: dict) -> None:
        """Keep the usable polygons: pycocotools takes two points for a box, and fails on others."""
        polygons = annotation.get("segmentation")
        image = self._coco_api.imgs.get(annotation["image_id"])
        if image is not None and isinstance(polygons, list):
            size = [image["height"], image["width"]]
            annotation["segmentation"] = [
                polygon for polygon in polygons if coco_format.is_polygon(polygon)
            ] or dict(size=size, counts=[size[0] * size[1]])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate; MMDetection's method sets the order of the classes only once."""
        self.cat_ids = None
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write the results; from then on the classes are in the order of their ids."""
        files = super().results2json(results, outfile_prefix)
        # pycocotools sorts the ids, and the table of classes is read in this order
        self.cat_ids = sorted(self.cat_ids)
        return files
