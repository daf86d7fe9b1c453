"""Images in a folder per class, as ImageNet has them; this module needs MMCV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric

from mmdcn.datasets.errors import DatasetError
from mmdcn.registry import DATASETS, METRICS, TRANSFORMS

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Images of classes, each in the folder with the name of its class.

    Args:
        data_root: The folder of these folders. The classes are their names in alphabetical order,
            unless ``metainfo`` says them.
        kwargs: As in MMEngine's ``BaseDataset``.

    Raises:
        DatasetError: A folder of a class is missing or has no image.
    """

    def __init__(self, data_root: str, **kwargs) -> None:
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The path and label of each image."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise DatasetError(f"data_root {root}: there is no such folder")
        names = self.metainfo.get("classes") or sorted(
            path.name for path in root.iterdir() if path.is_dir()
        )
        self._metainfo["classes"] = tuple(names)
        found: list[dict] = []
        for label, name in enumerate(names):
            files = sorted(p for p in (root / name).glob("*") if p.suffix.lower() in SUFFIXES)
            if not files:
                raise DatasetError(f"data_root {root}: the class {name} has no image there")
            found += [dict(img_path=str(file), label=label) for file in files]
        return found


@TRANSFORMS.register_module()
class PackLabelledImage(BaseTransform):
    """Packs an image and its label for :class:`mmdcn.models.classifiers.PooledClassifier`."""

    def transform(self, results: dict) -> dict:
        """Image ``(3, H, W)`` and class index."""
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=results["label"])


@METRICS.register_module()
class TopOneAccuracy(BaseMetric):
    """The percentage of images whose answer is right."""

    default_prefix = "accuracy"

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the answers of one batch."""
        self.results += [sample["answer"] == sample["label"] for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The mean over all images."""
        return {"top1": 100 * float(np.mean(results))}
