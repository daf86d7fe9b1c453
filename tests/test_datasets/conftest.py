"""A small data set in COCO's format, and the checks that the tools make of a config."""

import json
import logging

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

LOGGER = logging.getLogger("test_datasets")


class CocoFolder:
    """Two images of 20 x 10 pixels and three annotations, to be changed before a check.

    Attributes:
        path: The folder.
        content: Of the file.
        cfg: Config that trains and evaluates on it with boxes and masks.
    """

    def __init__(self, path):
        self.path = path
        (path / "train").mkdir()
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (20, 10), (200, 100, 50)).save(path / "train" / name)
        self.content = dict(
            images=[
                dict(id=1, file_name="a.jpg", width=20, height=10),
                dict(id=2, file_name="b.jpg", width=20, height=10),
            ],
            annotations=[
                dict(
                    id=number,
                    image_id=1 + number % 2,
                    category_id=7,
                    bbox=[1, 1, 5, 5],
                    area=12.5,
                    segmentation=[[1, 1, 6, 1, 6, 6]],
                    iscrowd=0,
                )
                for number in (11, 12, 13)
            ],
            categories=[dict(id=7, name="cat"), dict(id=8, name="dog")],
        )
        dataset = dict(
            type="CocoDataset",
            data_root=str(path),
            metainfo=dict(classes=("cat", "dog")),
            ann_file="train.json",
            data_prefix=dict(img="train/"),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            ],
        )
        self.cfg = Config(
            dict(
                default_scope="mmdet",
                train_dataloader=dict(dataset=dataset),
                val_dataloader=dict(dataset=dict(dataset, test_mode=True)),
                val_evaluator=dict(
                    type="CocoMetric", ann_file=str(path / "train.json"), metric=["bbox", "segm"]
                ),
            )
        )

    @property
    def dataset(self):
        """The training data set in the config."""
        return self.cfg.train_dataloader.dataset

    def image(self, number):
        return self.path / "train" / self.content["images"][number]["file_name"]

    def write(self):
        (self.path / "train.json").write_text(json.dumps(self.content))

    def check(self, *loaders, model=None):
        """Write the file and check the config as the tools do, for training by default."""
        self.write()
        check_config(self.cfg, loaders or ("train",), model)


def check_config(cfg, loaders=("train",), model=None, prepare=True):
    from mmdcn.datasets.checks import check_datasets, prepare_datasets

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if prepare:
            prepare_datasets(cfg, loaders)
        check_datasets(cfg, loaders, LOGGER, model)


@pytest.fixture
def coco(tmp_path):
    return CocoFolder(tmp_path)


@pytest.fixture
def check():
    """Checks a config as the tools do."""
    return check_config


@pytest.fixture
def lines(caplog):
    """Gives what was logged, from level INFO."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
